import encodeQr from 'qr';
import type { Identity } from './identities.ts';

/** Millimetres: of a label, and of the quiet zone and the height of its QR code. */
const [width, height, margin] = [62, 29, 2.5];

/**
 * What the QR code of a label says. It has no secret: everybody at the site can read a label. An installer scans it to note which
 * board stands where.
 */
export const labelText = ({ gateway, serial }: Pick<Identity, 'gateway' | 'serial'>): string =>
  `postern:1?gateway=${gateway}&serial=${serial}`;

/** The label of a board as SVG, in millimetres. */
export function label(identity: Pick<Identity, 'gateway' | 'serial'>): string {
  const rows = encodeQr(labelText(identity), 'raw', { ecc: 'medium', border: 0 });
  const dots = rows.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [`M${x} ${y}h1v1h-1z`] : [])));
  const side = height - 2 * margin;
  const line = (y: number, size: number, text: string) =>
    `<text x="${height + 1}" y="${y}" font-family="monospace" font-size="${size}">${text}</text>`;
  // A name of any length fits between the QR code and the edge.
  const room = width - height - margin;
  const size = (text: string) => Math.min(3, room / (0.62 * text.length)).toFixed(2);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}mm" height="${height}mm" viewBox="0 0 ${width} ${height}">
<rect width="${width}" height="${height}" fill="#fff"/>
<path transform="translate(${margin} ${margin}) scale(${(side / rows.length).toFixed(4)})" d="${dots.join('')}"/>
${line(9, 3, 'Postern')}
${line(15, Number(size(identity.gateway)), identity.gateway)}
${line(21, 3, identity.serial)}
</svg>
`;
}

/** A page with labels, to be printed from a browser. */
export const labelSheet = (batch: string, labels: readonly string[]): string => `<!doctype html>
<meta charset="utf-8">
<title>${batch}</title>
<style>
@page { size: A4; margin: 8mm }
body { margin: 0; display: flex; flex-wrap: wrap; gap: 2mm }
svg { break-inside: avoid; outline: 0.1mm dotted #999 }
</style>
${labels.join('')}`;
