/** Seconds from power-on: when U-Boot was done, when the initramfs was, and when the gateway answered. */
export interface ChartedStart {
  readonly kernel: number;
  readonly initramfs: number;
  readonly answer: number;
}

const parts = [
  { key: 'kernel', title: 'U-Boot: checks and unpacks', colour: '#9db38f' },
  { key: 'initramfs', title: 'kernel and initramfs', colour: '#4c6140' },
  { key: 'answer', title: 'root, firewall, Node, gateway', colour: '#1f5f8b' },
] as const;

/** Pixels: the length of a second, and the space to the left of the bar. */
const [second, left] = [50, 20] as const;

/** A picture (SVG) of a start: one bar on an axis of seconds, with the budget marked. */
export function startChart(start: ChartedStart, budget: number): string {
  const seconds = Math.max(budget, start.answer) + 1;
  const x = (at: number) => (left + at * second).toFixed(1);
  const bars = parts.map(({ key, colour }, index) => {
    const from = index === 0 ? 0 : start[parts[index - 1]!.key];
    return `<rect x="${x(from)}" y="20" width="${((start[key] - from) * second).toFixed(1)}" height="28" fill="${colour}"/>`;
  });
  const axis = Array.from(
    { length: Math.floor(seconds) + 1 },
    (_, at) => `<text x="${x(at)}" y="82" text-anchor="middle" fill="#666" font-size="12">${at}</text>`,
  );
  const legend = parts.flatMap(({ title, colour }, index) => {
    const at = left + index * 200;
    return [
      `<rect x="${at}" y="98" width="12" height="12" fill="${colour}"/>`,
      `<text x="${at + 18}" y="108" font-size="12">${title}</text>`,
    ];
  });
  const answer = `<text x="${x(start.answer + 0.1)}" y="39">${start.answer.toFixed(1)} s</text>`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.max(left + seconds * second + 20, left + 620)} 124" font-family="system-ui, sans-serif" font-size="14">
  <title>From power-on to the first answer of the gateway, in seconds; the budget is ${budget}</title>
  <rect width="100%" height="100%" fill="#ffffff"/>
  ${[...bars, answer, ...axis, ...legend].join('\n  ')}
  <path d="M${x(budget)} 8V64" stroke="#b3402a" stroke-width="2" stroke-dasharray="5 4"/>
  <text x="${x(budget - 0.1)}" y="16" text-anchor="end" fill="#b3402a" font-size="12">budget</text>
</svg>
`;
}
