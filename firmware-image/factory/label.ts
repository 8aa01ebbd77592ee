import encodeQr from 'qr';
import type { Identity } from './identities.ts';

/** Millimetres of a label. The QR code is as high as the label. */
const [width, height] = [62, 29];
/** Dots of the quiet zone around a QR code. [ISO/IEC 18004] */
const border = 4;

/**
 * What the QR code of a label says. It has no secret: everybody at the site can read a label. An installer scans it to note which
 * board stands where.
 */
export const labelText = ({ gateway, serial }: Pick<Identity, 'gateway' | 'serial'>): string =>
  `postern:1?gateway=${gateway}&serial=${serial}`;

/** The label of a board as SVG, in millimetres. */
export function label(identity: Pick<Identity, 'gateway' | 'serial'>): string {
  const rows = encodeQr(labelText(identity), 'raw', { ecc: 'medium', border });
  const dots = rows.flatMap((row, y) => row.flatMap((isDark, x) => (isDark ? [`M${x} ${y}h1v1h-1z`] : [])));
  const line = (y: number, size: number, text: string) =>
    `<text x="${height}" y="${y}" font-family="monospace" font-size="${size}">${text}</text>`;
  // A name of any length fits between the QR code and the edge.
  const room = width - height - 2;
  const size = (text: string) => Math.min(3, room / (0.62 * text.length)).toFixed(2);
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${width}mm" height="${height}mm" viewBox="0 0 ${width} ${height}">
<rect width="${width}" height="${height}" fill="#fff"/>
<path transform="scale(${(height / rows.length).toFixed(4)})" d="${dots.join('')}"/>
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
