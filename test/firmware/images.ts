import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { qemu } from '../../firmware-image/boards/qemu.ts';
import { type BuiltImage, buildImage } from '../../firmware-image/recipe/image.ts';
import { signingKeys } from '../../firmware-image/recipe/keys.ts';
import { output, parentOf, root } from '../../firmware-image/recipe/tools.ts';

/** What the program of a build does in place of the gateway. */
export type Fault = 'crashes' | 'never healthy';

/** Versions that the tests flash, and update to. */
export const versions = { first: '1.0.0', next: '1.1.0', bad: '1.2.0' } as const;

const program = join(root, 'dist/postern.mjs');

/** A build whose gateway has a fault: it ends at once, or serves CoAP at another port than it should. */
function faulty(fault: Fault): string {
  const file = parentOf(join(output, 'faulty', `${fault.replace(' ', '-')}.mjs`));
  const code = readFileSync(program, 'utf8');
  const before =
    fault === 'crashes'
      ? "if (process.argv[2] === 'gateway') throw new Error('this version is broken');\n"
      : // The probe, and every device, speaks into the void.
        "import dgram from 'node:dgram'; const send = dgram.Socket.prototype.send; dgram.Socket.prototype.send = function (...args) { return this.address().port === 5683 ? undefined : send.apply(this, args); };\n";
  writeFileSync(file, before + code);
  return file;
}

export async function buildFor(
  name: string,
  version: string,
  { withDisk = false, fault }: { withDisk?: boolean; fault?: Fault } = {},
): Promise<BuiltImage> {
  return await buildImage({
    board: qemu,
    name,
    version,
    keys: signingKeys(undefined),
    isDeveloperImage: false,
    // What is tested is not how small it is.
    level: 3,
    withDisk,
    ...(fault && { program: faulty(fault) }),
  });
}
