/** `docs/flow.svg`: the picture of a run in the README. Its colours follow the reader's light or dark scheme. */

const WIDTH = 880;
const HEIGHT = 430;

const STYLE = `
    text { font: 13px system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; fill: #1f2328; }
    .title { font-weight: 600; font-size: 14px; }
    .small { font-size: 12px; fill: #59636e; }
    .mono { font-family: ui-monospace, "DejaVu Sans Mono", monospace; font-size: 12px; }
    .yes { font-weight: 600; font-size: 12px; fill: #1a7f37; }
    .middle { text-anchor: middle; }
    .box { fill: #f6f8fa; stroke: #8c959f; }
    .inner { fill: none; stroke: #8c959f; stroke-dasharray: 3 3; }
    .line { fill: none; stroke: #0969da; stroke-width: 2; }
    .ask { fill: none; stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 5 4; }
    .dot { fill: #0969da; }
    .number { font-weight: 600; fill: #ffffff; text-anchor: middle; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .small { fill: #9198a1; }
      .yes { fill: #3fb950; }
      .box { fill: #161b22; stroke: #6e7681; }
      .inner { stroke: #6e7681; }
      .line { stroke: #4493f8; }
      .ask { stroke: #8b949e; }
      .dot { fill: #1f6feb; }
    }
  `;

const escaped = (text: string) => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
const text = (x: number, y: number, content: string, className = '') =>
  `<text x="${x}" y="${y}"${className === '' ? '' : ` class="${className}"`}>${escaped(content)}</text>`;
const box = (x: number, y: number, width: number, height: number, className = 'box') =>
  `<rect x="${x}" y="${y}" width="${width}" height="${height}" rx="8" class="${className}"/>`;
const dot = (x: number, y: number, number: number) =>
  `<circle cx="${x}" cy="${y}" r="10" class="dot"/>${text(x, y + 4.5, String(number), 'number')}`;

const NODES = [
  { y: 20, runtime: 'containerd', note: 'sent: what it lacks' },
  { y: 114, runtime: 'CRI-O', note: 'sent: what it lacks' },
  { y: 208, runtime: 'Docker', note: 'has the image: nothing is sent' },
];
const NODE = { x: 392, width: 250, height: 80 };

const STEPS = [
  ['open the image,', 'check its digests'],
  ['log in, probe', 'every node'],
  ['say all that', 'would go wrong'],
  ['one stream into', 'the runtime'],
  ['CRI’s image ID', '= what CI built?'],
  ['all yes: move', 'the names'],
  ['a pod per node,', 'pull policy Never'],
] as const;

function runner(): readonly string[] {
  return [
    box(16, 64, 220, 180),
    text(32, 90, 'CI runner', 'title'),
    box(32, 104, 188, 88, 'inner'),
    text(44, 127, 'app:1.2', 'mono'),
    text(44, 148, 'in docker, podman, buildah,', 'small'),
    text(44, 164, 'nerdctl, containerd,', 'small'),
    text(44, 180, 'or in an archive', 'small'),
    text(32, 214, 'kube-sideload', 'title'),
    text(32, 231, 'no registry, no agent', 'small'),
  ];
}

function nodes(): readonly string[] {
  const { x, width, height } = NODE;
  return NODES.flatMap(({ y, runtime, note }, index) => [
    box(x, y, width, height),
    text(x + 14, y + 24, `node ${index + 1}`, 'title'),
    text(x + width - 14, y + 24, runtime, 'mono end').replace('<text', '<text text-anchor="end"'),
    text(x + 14, y + 44, note, 'small'),
    text(x + 14, y + 65, 'image ID ✔', 'yes'),
    text(x + 104, y + 65, 'kubelet: Running ✔', 'yes'),
    `<path d="M236 154 C 310 154, 310 ${y + 40}, ${x - 4} ${y + 40}" class="line" marker-end="url(#head)"/>`,
  ]);
}

function cluster(): readonly string[] {
  return [
    box(716, 84, 148, 140),
    text(732, 110, 'Kubernetes API', 'title'),
    text(732, 134, 'smoke pods with', 'small'),
    text(732, 152, 'imagePullPolicy:', 'mono'),
    text(732, 170, 'Never', 'mono'),
    text(732, 194, 'the verdict is the', 'small'),
    text(732, 210, 'kubelet’s own', 'small'),
    ...NODES.map(({ y }) => `<path d="M716 154 C 680 154, 680 ${y + 40}, 646 ${y + 40}" class="ask"/>`),
  ];
}

function steps(): readonly string[] {
  const pitch = (WIDTH - 32) / STEPS.length;
  return STEPS.flatMap(([first, second], index) => {
    const x = 16 + pitch * (index + 0.5);
    const line = index === 0 ? [] : [`<path d="M${x - pitch + 14} 342 H${x - 14}" class="line"/>`];
    return [...line, dot(x, 342, index + 1), text(x, 374, first, 'small middle'), text(x, 390, second, 'small middle')];
  });
}

export function flowSvg(): string {
  const body = [
    ...runner(),
    text(252, 128, 'SSH', 'title'),
    ...nodes(),
    ...cluster(),
    ...steps(),
    text(WIDTH / 2, 420, 'One “no” on any node, and the job fails with every reason', 'small middle'),
  ];
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" role="img" aria-labelledby="title">
  <title id="title">An image goes from the CI runner over SSH into the runtime of every node; the job passes when each kubelet has started it.</title>
  <style>${STYLE}</style>
  <defs><marker id="head" viewBox="0 0 8 8" refX="6" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 L8 4 L0 8 z" class="dot"/></marker></defs>
  ${body.join('\n  ')}
</svg>
`;
}
