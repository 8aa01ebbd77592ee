// npm run update-bundle: a signed bundle of dist/postern.mjs for slots that are folders, as `postern launch` has them.
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { writeBundle } from '../src/gateway/update/bundle.ts';
import { directoryCompatible } from '../src/gateway/update/directory-slots.ts';
import { checkedVersion, runCommand } from './recipe/command.ts';
import { signingKeys } from './recipe/keys.ts';
import { output, packageVersion, parentOf, root } from './recipe/tools.ts';

const help = `npm run update-bundle -- [OPTIONS]

Signs dist/postern.mjs as an update for gateways that run by 'postern launch'.

  --version X.Y.Z  version of the update; that of package.json by default
  --floor X.Y.Z    once it is good, no version below this one is started
  --keys DIR       ca.crt, update.crt and update.key; made for development, and named so, by default
  --out FILE       where it goes; dist/firmware/postern-X.Y.Z.bundle by default
`;
await runCommand({
  help,
  options: {
    version: { type: 'string', default: packageVersion() },
    floor: { type: 'string' },
    keys: { type: 'string' },
    out: { type: 'string' },
  },
  run: ({ version, floor, keys, out = join(output, `postern-${version}.bundle`) }) => {
    checkedVersion('--version', version);
    if (floor !== undefined) checkedVersion('--floor', floor);
    const { folder } = signingKeys(keys);
    const read = (name: string) => readFileSync(join(folder, name), 'utf8');
    const bundle = writeBundle(
      readFileSync(join(root, 'dist/postern.mjs')),
      { compatible: directoryCompatible, version, ...(floor !== undefined && { floor }) },
      { certificates: [read('update.crt')], key: read('update.key') },
    );
    writeFileSync(parentOf(out), bundle);
    console.log(`${out}\nupdate.authority of the gateways: ${join(folder, 'ca.crt')}`);
  },
});
