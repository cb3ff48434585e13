"""How a report looks: one style sheet and a few lines of script, both put into the page itself."""

STYLE = """
:root {
  color-scheme: light dark;
  --paper: #ffffff; --raised: #f8fafc; --ink: #0f172a; --quiet: #526077; --line: #e2e8f0;
  --accent: #2563eb; --ours: #eff6ff; --fill: #dbeafe; --theirs: #64748b; --frame: #cbd5e1;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #0b1220; --raised: #121b2d; --ink: #e6ebf4; --quiet: #9dabc2; --line: #26324a;
    --accent: #7aa7ff; --ours: #15233f; --fill: #1d3768; --theirs: #94a3b8; --frame: #3b4a66;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; scroll-behavior: smooth; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 1rem; overflow-wrap: anywhere; }
h2 { font-size: 1.4rem; margin: 3.2rem 0 .8rem; padding-top: 1.1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.08rem; margin: 2rem 0 .6rem; }
h4 { font-size: 1rem; margin: 1.4rem 0 .5rem; color: var(--quiet); }
h2, h3, h4 { line-height: 1.3; overflow-wrap: anywhere; break-after: avoid; }
p { margin: .6rem 0; max-width: 46rem; overflow-wrap: anywhere; }
p.note, p.asked { color: var(--quiet); font-size: .88rem; }
p.verdict {
  max-width: none; font-size: 1.12rem; font-weight: 600; padding-left: .8rem; border-left: 4px solid var(--accent);
}
nav { display: flex; flex-wrap: wrap; gap: .4rem; margin: 1rem 0 0; }
nav a {
  color: var(--accent); text-decoration: none; font-size: .88rem; padding: .15rem .65rem;
  border: 1px solid var(--line); border-radius: 99px; background: var(--raised);
}
nav a:hover { border-color: var(--accent); }
.scroll { overflow-x: auto; margin: .8rem 0; width: fit-content; max-width: 100%; }
.scroll.tall { max-height: 30rem; overflow-y: auto; border-bottom: 1px solid var(--line); }
.scroll:focus-visible { outline: 2px solid var(--accent); outline-offset: 2px; }
table {
  width: max-content; border-collapse: separate; border-spacing: 0;
  font-size: .9rem; font-variant-numeric: tabular-nums;
}
th, td { padding: .38rem .75rem; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
thead th {
  position: sticky; top: 0; z-index: 1; background: var(--paper); color: var(--quiet);
  font-weight: 600; vertical-align: bottom; border-bottom: 2px solid var(--frame);
  white-space: normal; max-width: 8.5rem; line-height: 1.3;
}
tbody th, thead th:first-child { text-align: left; }
tbody th {
  position: sticky; left: 0; background: var(--paper); font-weight: 500; min-width: 7rem; max-width: 22rem;
  white-space: normal; overflow-wrap: anywhere;
}
thead th:first-child { left: 0; z-index: 2; }
tbody tr:hover > * { background-color: var(--raised); }
td.ours, tbody tr:hover > td.ours { background-color: var(--ours); font-weight: 600; }
td.none, tbody tr td.none { color: var(--quiet); font-weight: 400; }
thead th.ours { background: var(--ours); color: var(--ink); }
td.bar {
  min-width: 7rem; background-image: linear-gradient(var(--fill), var(--fill)); background-repeat: no-repeat;
  background-size: var(--bar) 72%; background-position: 0 50%;
}
th.chart, th.words, td.words { text-align: left; }
td.words { white-space: normal; overflow-wrap: anywhere; max-width: 32rem; }
td.chart { padding-top: 0; padding-bottom: 0; text-align: left; }
th[aria-sort] button::after { content: " ▾"; }
th[aria-sort="ascending"] button::after { content: " ▴"; }
th button { font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer; }
th button:hover, th button:focus-visible { color: var(--accent); text-decoration: underline; }
dl { margin: .8rem 0; font-size: .9rem; display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); }
dl > div { padding: .3rem 1rem .3rem 0; min-width: 0; }
dt { color: var(--quiet); font-size: .8rem; }
dd { margin: 0; overflow-wrap: anywhere; white-space: pre-line; }
figure { margin: 0; min-width: 0; }
svg { display: block; }
.beside { display: flex; flex-wrap: wrap; gap: .5rem 2.5rem; align-items: center; }
svg.chart { max-width: 100%; height: auto; margin: .8rem 0; }
svg text { fill: var(--quiet); font-size: 11px; font-family: inherit; }
.grid { stroke: var(--line); stroke-width: 1; }
.strip .grid { stroke: var(--frame); }
.axis { stroke: var(--frame); stroke-width: 1.5; }
.ideal { stroke: var(--quiet); stroke-width: 1; stroke-dasharray: 4 4; }
.curve { fill: none; stroke: var(--accent); stroke-width: 2; }
svg rect.bar { fill: var(--fill); }
svg rect.count { fill: var(--theirs); }
svg rect.heat { fill: var(--accent); }
svg rect.frame { fill: none; stroke: var(--frame); }
.charts { display: flex; flex-wrap: wrap; gap: .5rem 2.2rem; align-items: flex-end; margin: .8rem 0; }
.charts figcaption { font-size: .88rem; font-weight: 600; }
.charts svg.chart { margin: .4rem 0 0; }
.columns { display: flex; flex-wrap: wrap; gap: 0 3rem; }
.columns > div { min-width: 0; max-width: 100%; }
details summary { cursor: pointer; color: var(--accent); font-size: .88rem; width: fit-content; }
details .beside { align-items: flex-start; }
.whisker { stroke: var(--accent); stroke-width: 3; stroke-linecap: round; opacity: .5; }
.dot.ours { fill: var(--accent); stroke: var(--paper); stroke-width: 1; }
.dot.theirs { fill: var(--theirs); }
.dot.hollow { fill: var(--paper); stroke: var(--theirs); stroke-width: 1.5; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1rem; }
.card {
  border: 1px solid var(--line); border-radius: 10px; background: var(--raised); padding: .75rem;
  break-inside: avoid; min-width: 0;
}
.card.wide { grid-column: 1 / -1; }
.card header {
  display: flex; flex-wrap: wrap; justify-content: space-between; gap: 0 1rem;
  font-size: .88rem; margin-bottom: .55rem;
}
.card .name { overflow-wrap: anywhere; color: var(--quiet); }
.card .score { font-weight: 600; white-space: nowrap; font-variant-numeric: tabular-nums; }
.shots { display: flex; flex-wrap: wrap; gap: .75rem; }
.shots figure { flex: 1 1 17rem; max-width: 34rem; }
.shots img { display: block; width: 100%; height: auto; border-radius: 6px; border: 1px solid var(--line); }
.shots figcaption { font-size: .8rem; color: var(--quiet); margin-top: .25rem; }
.missing p { padding: 2rem 1rem; border: 1px dashed var(--frame); border-radius: 6px; color: var(--quiet); }
.card dl.said { display: block; margin: .6rem 0 0; max-height: 22rem; overflow-y: auto; }
.card dl.said > div { padding: .25rem 0; }
@media (max-width: 40rem) {
  main { padding: 1.2rem .9rem 3rem; }
  nav { flex-wrap: nowrap; overflow-x: auto; }
  nav a { white-space: nowrap; }
  dl { grid-template-columns: repeat(auto-fill, minmax(9rem, 1fr)); }
  h1 { font-size: 1.5rem; }
  h2 { font-size: 1.2rem; margin-top: 2.4rem; }
  table { font-size: .84rem; }
  th, td { padding: .34rem .5rem; }
  tbody th { min-width: 6rem; max-width: 9rem; }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #fff; --raised: #fff; --ink: #000; --quiet: #444; --line: #ccc; --accent: #1d4ed8;
    --ours: #eef4ff; --fill: #dbeafe; --theirs: #64748b; --frame: #888;
  }
  body { font-size: 10.5pt; print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll, .scroll.tall { overflow: visible; max-height: none; }
  .card dl.said { max-height: none; overflow: visible; }
  thead th, tbody th { position: static; }
  table { width: auto; font-size: 7.5pt; }
  th, td { padding: .15rem .35rem; white-space: normal; }
  tbody th { min-width: 0; }
  svg.strip { width: 2.2cm; height: auto; }
  tr, .beside { break-inside: avoid; }
  p.asked { break-after: avoid; }
  .gallery { display: block; }
  .card { margin-bottom: .4cm; }
  .card:not(.wide) { display: inline-block; width: 31%; margin-right: 1%; vertical-align: top; }
  .shots figure { flex-basis: 4.6cm; max-width: 7.5cm; }
}
"""

# Tables sort by a click on a heading: numbers by their size, what has none last.
SCRIPT = """
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const text = (row, i) => row.cells[i].textContent.trim().replace(/,/g, "").replace("\\u2212", "-");
  heads.forEach((head, i) => {
    if (head.classList.contains("chart")) return;
    const button = document.createElement("button");
    button.append(...head.childNodes);
    head.append(button);
    button.onclick = () => {
      const up = head.getAttribute("aria-sort") === "descending" || (i === 0 && !head.hasAttribute("aria-sort"));
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const rows = [...body.rows], way = up ? 1 : -1;
      rows.sort((a, b) => {
        const [x, y] = [text(a, i), text(b, i)], [p, q] = [parseFloat(x), parseFloat(y)];
        if (i > 0) return isNaN(p) || isNaN(q) ? isNaN(p) - isNaN(q) : way * (p - q);
        return way * x.localeCompare(y);
      });
      body.append(...rows);
    };
  });
}
"""
