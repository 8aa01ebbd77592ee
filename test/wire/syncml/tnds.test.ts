import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { decodeTnds, encodeTnds, type Tnds } from '../../../src/wire/syncml/tnds.ts';

const account: Tnds = {
  path: './Inbox',
  root: {
    name: 'gateway',
    format: 'node',
    type: 'urn:oma:mo:oma-dm-dmacc:1.0',
    acl: 'Get=*&Replace=gw',
    children: [
      { name: 'AppID', format: 'chr', type: 'text/plain', value: 'w7' },
      { name: 'AAuthData', format: 'bin', value: Buffer.from([1, 2, 250]) },
      { name: 'Ext', format: 'node', children: [{ name: 'Empty', format: 'chr', value: '' }] },
    ],
  },
};

// conforms: TND-18
test('a TNDS object in XML is the same after encoding and decoding', () => {
  assert.deepEqual(decodeTnds(encodeTnds(account)), account);
});

test('a TNDS object in XML truncated at any character is refused', () => {
  const text = encodeTnds(account);
  for (let length = 0; length < text.length; length++)
    assert.throws(() => decodeTnds(text.slice(0, length)), PosternError);
});

for (const [what, text] of [
  ['document type with a declaration', '<!DOCTYPE MgmtTree [<!ENTITY a "b">]><MgmtTree/>'],
  ['other root', '<Tree/>'],
  ['no node', '<MgmtTree/>'],
  ['inner node without name', '<MgmtTree><Node><NodeName>a</NodeName><Node/></Node></MgmtTree>'],
  ['name with a slash', '<MgmtTree><Node><NodeName>a/b</NodeName></Node></MgmtTree>'],
  [
    'unknown format',
    '<MgmtTree><Node><NodeName>a</NodeName><RTProperties><Format><x/></Format></RTProperties></Node></MgmtTree>',
  ],
] as const)
  test(`${what} is refused`, () => {
    assert.throws(() => decodeTnds(text), { code: 'malformed' });
  });

test('a TNDS object above the bound of characters is refused', () => {
  assert.throws(() => decodeTnds(`<MgmtTree>${' '.repeat(140_000)}</MgmtTree>`), { code: 'tooLarge' });
});
