import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';

/** Bytes of RSS that an idle association takes, with all that the transport keeps of it, in a process of its own. */
export const idleAssociationBytes = (count: number): number =>
  Number(
    execFileSync(process.execPath, [
      '--expose-gc',
      fileURLToPath(new URL('dtls-associations.ts', import.meta.url)),
      String(count),
    ]),
  );
