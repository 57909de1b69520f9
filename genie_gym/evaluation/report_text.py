"""What the sections of a report mean, and what they do not; how its page looks."""

SECTIONS = {
    "bars": (
        "Figures and their bars",
        "The bar is what a world must reach to be of use, the goal what this one is trained for.",
    ),
    "pictures": (
        "Pictures",
        "Films show the real game (left: the action and what it earned), the world under the same "
        "actions (middle: the expected reward and the chance that the game ended) and their "
        "difference (right), at a third of the game's speed. Windows are chosen by rule, not by "
        "taste. A few films prove nothing: the figures below count them all.",
    ),
    "prediction": (
        "Prediction against horizon",
        "How far imagined frames are from the real game's under the same actions. Rollouts are "
        "free: after the context the world sees its own frames alone. Lines are means, bands run "
        "from the 10th to the 90th percentile of the windows. Pixel averages say little of small "
        "things: read them beside copying the last real frame, and beside the objects below.",
    ),
    "objects": (
        "Objects",
        "Where ball and paddles are, found by colour and place in real and imagined frames: what "
        "pixel averages hide. Ball figures leave out what comes after the real ball is lost, since "
        "a serve cannot be known from the frames. A ball in the right place need not be going the "
        "right way.",
    ),
    "rewards": (
        "Rewards and ends",
        "Whether points and the end of a game are told when they happen, and not when they do not. "
        "Teacher-forced figures judge the heads on real frames; by imagined step they are those of "
        "heads and imagined frames together. In a calibrated world the reliability curve lies on "
        "its diagonal. Recall alone rewards a world that tells a point at every step. The length "
        "of games is that of whole imagined ones, where they are short enough.",
    ),
    "control": (
        "Control",
        "Whether actions, real and latent, do in the world what they do in the game. The delta of "
        "PSNR is that of the Genie paper: the recorded actions' minus that of random ones, four "
        "steps on. A code that is used often is not yet one that means something: see its gain and "
        "how well it tells the true action.",
    ),
    "reconstruction": (
        "Reconstruction",
        "How single real frames survive the tokenizer, with nothing predicted: the best that an "
        "imagined frame can be. A small error can still hide a ball that is lost.",
    ),
    "distances": (
        "Distances of distributions",
        "FVD and FID compare sets of films and frames, not pairs. They depend on the feature "
        "network and on the number of windows, and cannot be compared between networks.",
    ),
    "scaling": (
        "Memory and time",
        "Bytes and seconds against clip length, frame size and batch, with the exponents fitted to "
        "them: 1 is linear, 2 would be quadratic. Seconds are those of the machine it ran on.",
    ),
    "rollouts": (
        "Rollouts",
        "How many windows were imagined, and how far. Figures of few windows are rough.",
    ),
    "provenance": (
        "Provenance",
        "What the world was judged on, which it did not learn from, and what it was made of. The "
        "same world, recording and settings give the same report on the same machine.",
    ),
}
"""Title and text by key of the report, in the order of the page; other keys follow."""

STYLE = """
:root { --ink: #1d2430; --soft: #5b6675; --line: #d5dbe3; --paper: #fff; --tint: #f4f6f9;
  --s0: #0072b2; --s1: #c44e00; --s2: #00795a; --s3: #8a4a9e; }
* { box-sizing: border-box; }
body { margin: 0; color: var(--ink); background: var(--paper);
  font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; overflow-wrap: break-word; }
header, main, footer { max-width: 70rem; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 2rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .4rem; }
h2 { font-size: 1.35rem; margin: 2.6rem 0 .3rem; padding-top: .6rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.5rem 0 .3rem; }
h4, h5, h6 { font-size: .95rem; margin: 1rem 0 .2rem; color: var(--soft); }
p { max-width: 46rem; margin: .3rem 0 .8rem; }
.lead { font-size: 1.1rem; }
.soft, .none { color: var(--soft); }
.none { font-style: italic; }
nav { display: flex; flex-wrap: wrap; gap: .3rem .5rem; margin: 1rem 0; }
nav a { padding: .15rem .65rem; border: 1px solid var(--line); border-radius: 1rem;
  color: var(--ink); text-decoration: none; font-size: .9rem; }
nav a:hover, nav a:focus { background: var(--tint); }
.scroll { overflow-x: auto; margin: .5rem 0 1rem; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .7rem; border-bottom: 1px solid var(--line);
  vertical-align: top; white-space: nowrap; }
th { font-weight: 600; }
thead th { background: var(--tint); vertical-align: bottom; }
thead th { white-space: normal; }
th:first-child, td.text { text-align: left; white-space: normal; }
td small { color: var(--soft); display: block; }
.bars { width: 100%; }
.verdict { font-weight: 600; white-space: nowrap; }
.yes::before { content: "\\2713\\00a0"; color: #00795a; }
.no::before { content: "\\2717\\00a0"; color: #b3261e; }
td .none { white-space: normal; display: inline-block; min-width: 8rem; text-align: left; }
.verdict .none { min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(19rem, 100%), 1fr));
  gap: .8rem 1.2rem; margin: 1rem 0; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-weight: 600; font-size: .95rem; }
.chart svg { width: 100%; height: auto; display: block; }
.chart text { font: 10.5px system-ui, Helvetica, Arial, sans-serif; fill: var(--soft); }
.grid { stroke: var(--line); stroke-width: .7; fill: none; }
.axis, .tick { stroke: var(--soft); fill: none; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; }
.line.s0 { stroke: var(--s0); } .mark.s0, .bar { fill: var(--s0); }
.line.s1 { stroke: var(--s1); stroke-dasharray: 6 3; } .mark.s1 { fill: var(--s1); }
.line.s2 { stroke: var(--s2); stroke-dasharray: 2 3; } .mark.s2 { fill: var(--s2); }
.line.s3 { stroke: var(--s3); stroke-dasharray: 9 3 2 3; } .mark.s3 { fill: var(--s3); }
.band { fill-opacity: .16; } .band.s0 { fill: var(--s0); } .band.s1 { fill: var(--s1); }
.pictures figure { margin: 1.2rem 0; }
.films { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(30rem, 100%), 1fr));
  gap: 0 1.5rem; }
.pictures figcaption p { font-weight: 400; margin: .1rem 0 .4rem; }
video, .pictures img { width: 100%; height: auto; background: #000; image-rendering: pixelated; }
.onpaper { display: none; }
footer { padding-bottom: 3rem; font-size: .9rem; }
@media (max-width: 40rem) {
  body { font-size: 15px; } h1 { font-size: 1.5rem; }
  .bars thead { display: none; }
  .bars tr { display: grid; grid-template-columns: 1fr 1fr 1fr; padding: .5rem 0;
    border-bottom: 1px solid var(--line); }
  .bars th, .bars td { border: 0; padding: 0 .3rem 0 0; text-align: left; }
  .bars th, .bars .verdict { grid-column: 1 / -1; } .bars td { white-space: normal; }
  td .none { display: inline; } .pictures .scroll img { min-width: 46rem; }
  .bars td[data-name]::before { content: attr(data-name) " "; color: var(--soft); }
}
@media print {
  body { font-size: 10pt; } nav, video { display: none; } .onpaper { display: block; }
  header, main, footer { max-width: none; padding: 0; }
  .scroll { overflow: visible; } table { font-size: 7pt; }
  th, td { padding: .1rem .25rem; white-space: normal; } td .none { min-width: 0; }
  .charts { grid-template-columns: repeat(3, 1fr); } h2, h3 { break-after: avoid; }
  tr { break-inside: avoid; }
}
"""
"""No web fonts and no scripts: nothing is fetched."""
