// The list groups conversations by the days of the reader's own time zone.

const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
if (zone) document.cookie = `omni_zone=${zone}; path=/chat/; max-age=31536000; samesite=lax`;
