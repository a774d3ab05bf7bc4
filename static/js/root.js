// Where the panel is: at the root of its address, or below a path of a proxy's.

/** An address of the panel's own, such as /chat/, as the browser has to ask for it. */
export const below = (path) => `${document.body.dataset.root}${path}`;
