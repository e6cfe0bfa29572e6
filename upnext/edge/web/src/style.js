// The page sets the looks by custom properties, such as --upnext-background.

export const css = `
:host{display:block;font:var(--upnext-font,inherit)}
:host([kind=button]){display:inline-block}
:host([kind=tooltip]),:host([kind=tour]){position:fixed;z-index:var(--upnext-layer,1000);max-width:20em;flex-wrap:wrap}
p{margin:0;flex:1 0 100%}
:host([kind=footer]){position:fixed;inset:auto 0 0;z-index:var(--upnext-layer,1000)}
:host,dialog{--ground:var(--upnext-background,#1c2333);--ink:var(--upnext-color,#fff)}
:host(:not([kind=modal])){background:var(--ground);border-radius:var(--upnext-radius,8px)}
:host([kind=footer]){border-radius:0}
:host(:not([kind=modal])),dialog{color:var(--ink)}
:host(:not([kind=modal]):not([kind=button])){display:flex;align-items:center;gap:1em;padding:.75em 1em}
dialog{background:var(--ground);border:0;border-radius:var(--upnext-radius,8px);padding:1.5em;max-width:min(28em,90vw)}
dialog[open]{display:flex;align-items:start;gap:1em}
dialog::backdrop{background:#0008}
a{color:inherit;flex:1;font-weight:600;text-underline-offset:.2em}
:host([kind=button]) a{display:block;padding:.5em 1em;text-decoration:none}
button{all:unset;cursor:pointer;padding:0 .4em;font-size:1.25em;line-height:1}
a:focus-visible,button:focus-visible{outline:2px solid currentColor;outline-offset:2px}
@media (prefers-reduced-motion:no-preference){:host,dialog{animation:in .2s}@keyframes in{from{opacity:0}}}
`;
