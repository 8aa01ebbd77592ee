/** Seconds from power-on: when U-Boot was done, when the kernel was, and when the gateway answered. */
export interface ChartedStart {
  readonly name: string;
  readonly kernel: number;
  readonly initramfs: number;
  readonly answer: number;
}

const parts = [
  { title: 'U-Boot: checks and unpacks', colour: '#9db38f' },
  { title: 'kernel and initramfs', colour: '#4c6140' },
  { title: 'root, firewall, Node, gateway', colour: '#1f5f8b' },
] as const;

/** Pixels: of a second, of a row, and to the left of the bars. */
const [second, row, left] = [50, 44, 130] as const;

/** A picture (SVG) of starts: a bar for each, on an axis of seconds with the budget marked. */
export function startChart(starts: readonly ChartedStart[], budget: number): string {
  const seconds = Math.max(budget, ...starts.map(({ answer }) => answer)) + 1;
  const [width, bottom] = [left + seconds * second + 20, 20 + starts.length * row] as const;
  const x = (at: number) => (left + at * second).toFixed(1);
  const bars = starts.flatMap(({ name, kernel, initramfs, answer }, index) => {
    const y = 20 + index * row;
    const ends = [kernel, initramfs, answer];
    return [
      `<text x="${left - 10}" y="${y + 19}" text-anchor="end">${name}</text>`,
      ...parts.map(({ colour }, part) => {
        const from = ends[part - 1] ?? 0;
        return `<rect x="${x(from)}" y="${y}" width="${((ends[part]! - from) * second).toFixed(1)}" height="28" fill="${colour}"/>`;
      }),
      `<text x="${x(answer + 0.1)}" y="${y + 19}">${answer.toFixed(1)} s</text>`,
    ];
  });
  const axis = Array.from({ length: Math.floor(seconds) + 1 }, (_, at) => at).map(
    (at) =>
      `<text x="${x(at)}" y="${bottom + 18}" text-anchor="middle" fill="#666" font-size="12">${at}</text>`,
  );
  const legend = parts.flatMap(({ title, colour }, index) => {
    const at = left + index * 200;
    return [
      `<rect x="${at}" y="${bottom + 34}" width="12" height="12" fill="${colour}"/>`,
      `<text x="${at + 18}" y="${bottom + 44}" font-size="12">${title}</text>`,
    ];
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${Math.max(width, left + 620)} ${bottom + 60}" font-family="system-ui, sans-serif" font-size="14">
  <title>From power-on to the first answer of the gateway, in seconds; the budget is ${budget}</title>
  <rect width="100%" height="100%" fill="#ffffff"/>
  ${[...bars, ...axis, ...legend].join('\n  ')}
  <path d="M${x(budget)} 8V${bottom}" stroke="#b3402a" stroke-width="2" stroke-dasharray="5 4"/>
  <text x="${x(budget - 0.1)}" y="16" text-anchor="end" fill="#b3402a" font-size="12">budget</text>
</svg>
`;
}
