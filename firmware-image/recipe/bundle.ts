import { closeSync, linkSync, openSync, readFileSync, readSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { blockBytes, firstBytes, indexSuffix, writeIndex } from '../../src/gateway/store/block-index.ts';
import { digestOf } from '../../src/gateway/update/bundle.ts';
import { type SigningKeys, trustFiles } from './keys.ts';
import { fresh, run } from './tools.ts';

/** What a bundle is made of. */
export interface BundleParts {
  /** Kind of board, `boardKind`. */
  readonly kind: string;
  readonly version: string;
  /** Description in the manifest. */
  readonly description: string;
  /** File for the partition boot-a or boot-b. */
  readonly fit: string;
  /** File for the partition root-a or root-b. */
  readonly root: string;
  /** Time stamp of all files, in seconds since 1970. */
  readonly date: number;
  readonly keys: SigningKeys;
  /** The field `build` of the manifest. Default: the second signature, if the keys have a second signer. */
  readonly build?: string;
}

/**
 * The second signature of a bundle in base64: CMS, over version, kind of board and the digests of both images, as the agent of the
 * board puts them together (rootfs/usr/lib/postern/trust). RAUC takes one signature only, and stores the field `build` of the
 * manifest with the slot.
 */
function secondSignature(folder: string, { kind, version, fit, root, keys }: BundleParts): string {
  const [rootfs, boot] = [root, fit].map((image) => digestOf(readFileSync(image)));
  const text = join(folder, 'second.text');
  const made = join(folder, 'second.der');
  writeFileSync(
    text,
    `postern-second-signature 1\nversion=${version}\ncompatible=postern-${kind}\nrootfs=${rootfs}\nboot=${boot}\n`,
  );
  const signer = ['-signer', join(keys.folder, 'second.crt'), '-inkey', join(keys.folder, 'second.key')];
  run('openssl', [
    'cms',
    '-sign',
    '-binary',
    '-nosmimecap',
    '-in',
    text,
    ...signer,
    '-outform',
    'DER',
    '-out',
    made,
  ]);
  const signature = readFileSync(made).toString('base64');
  run('rm', [text, made]);
  return signature;
}

/**
 * Makes the signed update bundle with the images of one slot (RAUC, verity format), and beside it the index of its blocks. The
 * images are stored in the bundle as they are, so a board finds their blocks in its running slot.
 * @param folder folder for temporary files; it is emptied first
 * @param file path of the bundle
 */
export function makeBundle(folder: string, file: string, parts: BundleParts): void {
  const { kind, version, description, fit, root, date, keys } = parts;
  fresh(folder);
  const { authority, old, second } = trustFiles(keys.folder);
  const build = parts.build ?? (second === undefined ? '' : secondSignature(folder, parts));
  linkSync(fit, join(folder, 'boot.img'));
  linkSync(root, join(folder, 'root.img'));
  writeFileSync(
    join(folder, 'manifest.raucm'),
    `[update]
compatible=postern-${kind}
version=${version}
description=${description}${build && `\nbuild=${build}`}

[bundle]
format=verity

[image.rootfs]
filename=root.img

[image.boot]
filename=boot.img
`,
  );
  run('rm', ['-f', file]);
  const key = (name: string) => join(keys.folder, name);
  const keyring = `${file}.keyring`;
  writeFileSync(keyring, authority + (old?.certificate ?? ''));
  run(
    'rauc',
    [
      'bundle',
      `--cert=${key('update.crt')}`,
      `--key=${key('update.key')}`,
      `--keyring=${keyring}`,
      '--mksquashfs-args=-noD -noF -all-root',
      folder,
      file,
    ],
    { env: { SOURCE_DATE_EPOCH: String(date) } },
  );
  run('rm', [keyring]);
  const bundle = readFileSync(file);
  const at = bundle.indexOf(firstBlock(root));
  if (at < 0 || (at - firstBytes(bundle)) % blockBytes !== 0)
    throw new Error('the root is not stored in the bundle as it is, or not where its blocks are looked for');
  writeFileSync(file + indexSuffix, writeIndex(bundle));
}

function firstBlock(path: string): Buffer {
  const file = openSync(path, 'r');
  try {
    const block = Buffer.alloc(blockBytes);
    return block.subarray(0, readSync(file, block));
  } finally {
    closeSync(file);
  }
}
