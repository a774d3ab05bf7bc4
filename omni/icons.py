"""Line icons on a 24 × 24 grid, drawn for Omni: the paths inside one <svg>."""

from __future__ import annotations

ICONS: dict[str, str] = {
    "rig": (
        '<rect x="3" y="6" width="18" height="12" rx="2"/><circle cx="9" cy="12" r="3"/><path'
        ' d="M16 10v4M3 21v-3"/>'
    ),
    "models": '<path d="M12 3 4 7v10l8 4 8-4V7z"/><path d="m4 7 8 4 8-4M12 11v10"/>',
    "plan": '<path d="M4 4v16h16"/><path d="M8 7h6M8 12h11M8 17h4"/>',
    "star": (
        '<path d="m12 4 2.400 5.200 5.600.700-4.100 3.900 1.100 5.600-5-2.800-5 2.800 1.100-5.600L4'
        ' 9.900l5.600-.700z"/>'
    ),
    "question": (
        '<circle cx="12" cy="12" r="9"/><path d="M9.500 9.500a2.500 2.500 0 1 1 3.500'
        ' 2.300c-.700.300-1 .800-1 1.700M12 17h.01"/>'
    ),
    "deployments": (
        '<rect x="4" y="4" width="16" height="6" rx="1.5"/><rect x="4" y="14" width="16" height="6"'
        ' rx="1.5"/><path d="M8 7h.01M8 17h.01"/>'
    ),
    "benchmarks": (
        '<path d="M5.500 18.500a9 9 0 1 1 13 0"/><path d="m12 13 4-4.500"/><circle cx="12" cy="13"'
        ' r="1.200"/>'
    ),
    "chat": (
        '<path d="M20 12a8 7 0 0 1-8 7c-1.3 0-2.5-.2-3.600-.7L4 20l1.200-3.600A7 7 0 0 1 4 12a8 7 0'
        ' 0 1 16 0z"/>'
    ),
    "key": '<circle cx="8" cy="15" r="4.500"/><path d="m11.500 11.500 8-8M16 7l3 3"/>',
    "activity": '<path d="M3 12h4l3-7 4 14 3-7h4"/>',
    "doctor": (
        '<path d="M5 4v5a4 4 0 0 0 8 0V4M9 13v2a5 5 0 0 0 9.500 2"/><circle cx="19" cy="14"'
        ' r="2.500"/>'
    ),
    "bell": '<path d="M6 17V11a6 6 0 0 1 12 0v6l1.500 1h-15zM10.500 21h3"/>',
    "play": '<path d="M7 5v14l12-7z"/>',
    "stop": '<rect x="6" y="6" width="12" height="12" rx="1.5"/>',
    "trash": '<path d="M4 7h16M9 7V4h6v3M6 7l1 13h10l1-13M10 11v5M14 11v5"/>',
    "plus": '<path d="M12 5v14M5 12h14"/>',
    "copy": (
        '<rect x="8" y="8" width="12" height="12" rx="2"/><path d="M16 8V6a2 2 0 0 0-2-2H6a2 2 0 0'
        ' 0-2 2v8a2 2 0 0 0 2 2h2"/>'
    ),
    "refresh": '<path d="M19 12a7 7 0 1 1-2-5l2 2"/><path d="M19 4v5h-5"/>',
    "search": '<circle cx="11" cy="11" r="6"/><path d="m20 20-4.500-4.500"/>',
    "check": '<path d="m5 13 4 4L19 7"/>',
    "alert": '<path d="M12 4 2.500 20h19z"/><path d="M12 10v4M12 17h.01"/>',
    "chevron": '<path d="m9 6 6 6-6 6"/>',
    "left": '<path d="M19 12H5M11 6l-6 6 6 6"/>',
    "right": '<path d="M5 12h14M13 6l6 6-6 6"/>',
    "eye": (
        '<path d="M2.500 12S6 5.500 12 5.500 21.500 12 21.500 12 18 18.500 12 18.500 2.500 12 2.500'
        ' 12z"/><circle cx="12" cy="12" r="2.500"/>'
    ),
    "eye-off": (
        '<path d="M9.500 5.800A9 9 0 0 1 12 5.500c6 0 9.500 6.500 9.500 6.500a17 17 0 0 1-2.600'
        ' 3.300M6 7.300A16 16 0 0 0 2.500 12S6 18.500 12 18.500a9 9 0 0 0 4-.9M4 4l16 16"/>'
    ),
    "standings": '<path d="M4 20v-6h5v6M9.500 20V5h5v15M15 20v-9h5v9M3 20h18"/>',
    "edit": '<path d="m5 19 1-4L16 5l3 3L9 18z"/>',
    "image": (
        '<rect x="4" y="5" width="16" height="14" rx="2"/><circle cx="9" cy="10" r="1.500"/>'
        '<path d="m5 18 5-5 3 3 3-3 4 4"/>'
    ),
    "send": '<path d="M12 19V6M6 11l6-6 6 6"/>',
    "download": '<path d="M12 4v11M7 11l5 5 5-5M5 20h14"/>',
    "plug": '<path d="M9 3v5M15 3v5M6 8h12v3a6 6 0 0 1-12 0zM12 17v4"/>',
    "external": '<path d="M14 4h6v6M20 4l-9 9M18 14v5H5V6h5"/>',
    "close": '<path d="M6 6l12 12M18 6 6 18"/>',
    "more": (
        '<circle cx="5" cy="12" r="1"/><circle cx="12" cy="12" r="1"/>'
        '<circle cx="19" cy="12" r="1"/>'
    ),
    "menu": '<path d="M4 7h16M4 12h16M4 17h16"/>',
    "sun": (
        '<circle cx="12" cy="12" r="4"/><path d="M12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.500'
        ' 1.500M17.500 17.500 19 19M19 5l-1.500 1.500M6.500 17.500 5 19"/>'
    ),
    "moon": '<path d="M20 14a8 8 0 1 1-10-10 6.500 6.500 0 0 0 10 10z"/>',
    "info": '<circle cx="12" cy="12" r="9"/><path d="M12 11v5M12 8h.01"/>',
    "clock": '<circle cx="12" cy="12" r="9"/><path d="M12 7v5l3 2"/>',
    "bolt": '<path d="M13 3 5 13.500h6L11 21l8-10.500h-6z"/>',
    "cpu": (
        '<rect x="7" y="7" width="10" height="10" rx="1.500"/><path d="M10 3v4M14 3v4M10 17v4M14'
        ' 17v4M3 10h4M3 14h4M17 10h4M17 14h4"/>'
    ),
    "memory": (
        '<rect x="3" y="8" width="18" height="8" rx="1.500"/><path d="M7 8v4M11 8v4M15 8v4M6'
        ' 16v3M18 16v3"/>'
    ),
    "settings": (
        '<path d="M4 7h9M17 7h3M4 17h3M11 17h9"/><circle cx="15" cy="7" r="2"/><circle cx="9"'
        ' cy="17" r="2"/>'
    ),
    "user": '<circle cx="12" cy="8" r="4"/><path d="M5 20a7 6 0 0 1 14 0"/>',
    "logout": '<path d="M14 4h4a2 2 0 0 1 2 2v12a2 2 0 0 1-2 2h-4M10 16l-4-4 4-4M6 12h9"/>',
}
