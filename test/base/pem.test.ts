import assert from 'node:assert/strict';
import { writeFileSync } from 'node:fs';
import { test } from 'node:test';
import { readPem } from '../../src/base/pem.ts';
import { demandUsable, tlsFiles } from '../../src/wire/tunnel/mqtt-settings.ts';
import { freshState } from '../state-files.ts';

test('an empty file of certificates is not taken for none: the authorities of the machine are not trusted in its place', (t) => {
  const file = freshState(t);
  for (const content of ['', '\n', 'no certificate']) {
    writeFileSync(file, content);
    const wanted = { code: 'configuration', message: `mqtt.ca: ${file} holds nothing in PEM` };
    const settings = { url: 'mqtts://127.0.0.1:1', protocol: 5, ca: file } as const;
    assert.throws(() => readPem(file, 'mqtt.ca'), wanted);
    assert.throws(() => tlsFiles(settings), wanted);
    assert.throws(() => demandUsable(settings), wanted);
  }
  assert.throws(() => readPem(`${file}.none`, 'images.ca'), /images\.ca: .* cannot be read \(ENOENT\)/);
});
