// npm run update-bundle: makes a signed bundle of dist/postern.mjs for gateways whose slots are folders (`postern launch`).
import { X509Certificate } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { indexSuffix, writeIndex } from '../src/gateway/store/block-index.ts';
import { writeBundle } from '../src/gateway/update/bundle.ts';
import { directoryCompatible } from '../src/gateway/update/directory-slots.ts';
import { checkedVersion, runCommand } from './recipe/command.ts';
import { signingKeys, trustFiles } from './recipe/keys.ts';
import { output, packageVersion, parentOf, root } from './recipe/tools.ts';

const help = `npm run update-bundle -- [OPTIONS]

Signs dist/postern.mjs as an update for gateways that run by 'postern launch'.

  --version X.Y.Z  version of the update; by default the version in package.json
  --floor X.Y.Z    lowest version that is still started, once this update has proved healthy
  --keys DIR       folder with the keys, as for 'npm run image'; by default keys for development, which say so in their names
  --out FILE       path of the bundle; by default dist/firmware/postern-X.Y.Z.bundle
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
    const { authority, old, second, list } = trustFiles(folder);
    // A signer of the old authority brings the new one.
    const isBridge =
      old && new X509Certificate(read('update.crt')).verify(new X509Certificate(old.certificate).publicKey);
    const program = readFileSync(join(root, 'dist/postern.mjs'));
    const bundle = writeBundle(
      program,
      {
        compatible: directoryCompatible,
        version,
        ...(floor !== undefined && { floor }),
        ...(isBridge && { authority: { certificate: authority, until: old.until } }),
      },
      { certificates: [read('update.crt'), ...(list === undefined ? [] : [list])], key: read('update.key') },
      ...(second === undefined ? [] : [{ certificates: [read('second.crt')], key: read('second.key') }]),
    );
    writeFileSync(parentOf(out), bundle);
    writeFileSync(out + indexSuffix, writeIndex(bundle));
    console.log(
      `${out}\n${
        isBridge
          ? `It brings the authority ${join(folder, 'ca.crt')} to the gateways`
          : `Set update.authority of the gateways to: ${join(folder, 'ca.crt')}`
      }`,
    );
    if (second !== undefined) console.log(`Set update.second-authority to: ${join(folder, 'second-ca.crt')}`);
  },
});
