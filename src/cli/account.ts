import { createPrivateKey, generateKeyPairSync, type KeyObject } from 'node:crypto';
import { existsSync } from 'node:fs';
import { stringify } from 'smol-toml';
import { writeDurably } from '../base/durable.ts';
import { asPosternError, PosternError } from '../base/errors.ts';
import { readNamedFile } from '../base/named-file.ts';
import { readAccount } from '../wire/tunnel/board-account.ts';
import type { Command } from './runner.ts';

export const account: Command = {
  summary: 'Reads the account that a board has made, for the configuration of the head-end',
  help: `Usage: postern account --new-key FILE
       postern account FILE [--key KEY]

A board that is not enrolled by the head-end makes the secrets of its DM account itself, at its first boot. It leaves them in
enrolment.json on its partition CONFIG, sealed to the key that provision.operator-key names. This command opens that file, and
prints the entry for the configuration of the head-end:

  postern account --new-key operator.key        once; operator.key.pub goes onto CONFIG of each board
  postern account enrolment.json --key operator.key >> headend.toml

Delete enrolment.json afterwards. The head-end takes the entry over at SIGHUP.

  --new-key FILE  makes a key pair on P-256: FILE for you alone, and FILE.pub
  --key KEY       PEM file with the private key`,
  options: { key: { type: 'string' }, 'new-key': { type: 'string' } },
  words: 1,
  async run({ key, 'new-key': made }, _stop, [file]) {
    if (made !== undefined) return makeKey(String(made));
    if (file === undefined)
      throw new PosternError('malformed', "expected enrolment.json; see 'postern account --help'");
    const { id, clientSecret, serverSecret } = readAccount(
      read(file).toString(),
      file,
      key === undefined ? undefined : privateKey(String(key)),
    );
    const entry = { id, 'client-secret': clientSecret, 'server-secret': serverSecret };
    console.log(`\n${stringify({ gateway: [entry] }).trim()}`);
  },
};

function makeKey(file: string): void {
  for (const one of [file, `${file}.pub`])
    if (existsSync(one))
      throw new PosternError('conflict', `${one} exists already; take another name, or remove it`);
  const { privateKey: secret, publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' });
  try {
    writeDurably(file, secret.export({ type: 'pkcs8', format: 'pem' }));
    writeDurably(`${file}.pub`, publicKey.export({ type: 'spki', format: 'pem' }));
  } catch (cause) {
    throw new PosternError('storage', `the key ${file} cannot be written: ${String(cause)}`, { cause });
  }
  console.log(`the private key is in ${file}, for you alone; ${file}.pub goes onto the boards`);
}

function read(file: string): Buffer {
  try {
    return readNamedFile(file, { takesPipe: true });
  } catch (cause) {
    throw new PosternError('configuration', `${file} ${asPosternError(cause).message}`, { cause });
  }
}

function privateKey(file: string): KeyObject {
  const content = read(file);
  try {
    const key = createPrivateKey(content);
    if (key.asymmetricKeyDetails?.namedCurve === 'prime256v1') return key;
  } catch {
    // Something else than a private key.
  }
  throw new PosternError('configuration', `${file} holds no private key of P-256`);
}
