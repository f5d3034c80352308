"""The style sheet of `report.html`: one accent colour, light and dark."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #fcfcfa; --card: #fff; --ink: #1d2126; --soft: #6b727b; --rule: #e6e7e3;
  --accent: #0b7a75;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14171a; --card: #1b1f23; --ink: #e4e7ea; --soft: #959da6; --rule: #2c3237;
    --accent: #3fc1b6;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 40px 24px 64px; }
h1 { margin: 0; font-size: 28px; line-height: 1.2; overflow-wrap: anywhere; }
h1::before { content: ""; display: block; width: 40px; height: 4px; margin-bottom: 16px;
  background: var(--accent); }
h2 { margin: 40px 0 12px; font-size: 17px; }
p { margin: 6px 0 12px; color: var(--soft); }
.summary { font-size: 17px; }
.summary::first-letter { text-transform: uppercase; }
.panels, .pictures { display: grid; gap: 16px; }
.panels { grid-template-columns: repeat(auto-fill, minmax(min(100%, 400px), 1fr)); }
.pictures { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
figure { margin: 0 0 16px; padding: 12px 14px; background: var(--card);
  border: 1px solid var(--rule); border-radius: 8px; }
.panels figure, .pictures figure { margin: 0; }
figcaption { display: flex; flex-wrap: wrap; gap: 2px 14px; margin-bottom: 8px; font-size: 13px;
  color: var(--soft); }
figcaption b { color: var(--ink); }
figcaption strong { color: var(--accent); }
img { display: block; max-width: 100%; margin: 0 auto; }
.chart { display: block; width: 100%; height: auto; }
.chart text { font: 11px system-ui, sans-serif; fill: var(--soft); }
.chart .tick { text-anchor: end; }
.chart .step { text-anchor: middle; }
.chart .last { font-weight: 600; fill: var(--curve); }
.grid { stroke: var(--rule); }
.line { fill: none; stroke: var(--curve); stroke-width: 1.75; stroke-linejoin: round;
  stroke-dasharray: var(--dash); }
.band { fill: var(--curve); opacity: 0.14; }
.dot { fill: var(--curve); }
.swatch { width: 18px; height: 10px; margin-right: 5px; }
.curve-0, .curve-2, .curve-4 { --curve: var(--accent); }
.curve-1, .curve-3, .curve-5 { --curve: var(--ink); }
.curve-2, .curve-3 { --dash: 6 3; }
.curve-4, .curve-5 { --dash: 2 3; }
details { margin-top: 16px; border-top: 1px solid var(--rule); padding-top: 12px; }
summary { cursor: pointer; font-weight: 600; }
pre { overflow-x: auto; padding: 14px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 8px; font: 12px/1.5 ui-monospace, monospace; }
"""
