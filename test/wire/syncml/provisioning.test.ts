import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { PosternError } from '../../../src/base/errors.ts';
import { provisionedAccounts } from '../../../src/mo/provisioned-accounts.ts';
import { decodeProvisioning } from '../../../src/wire/syncml/provisioning.ts';

const parm = (name: string, value: string) => `<parm name="${name}" value="${value}"/>`;
const part = (type: string, ...inner: string[]) =>
  `<characteristic type="${type}">${inner.join('')}</characteristic>`;
const auth = (level: string, type: string, name: string, secret: string, data?: string) =>
  part(
    'APPAUTH',
    parm('AAUTHLEVEL', level),
    parm('AAUTHTYPE', type),
    parm('AAUTHNAME', name),
    parm('AAUTHSECRET', secret),
    ...(data ? [parm('AAUTHDATA', data)] : []),
  );
const account = (...more: string[]) =>
  part(
    'APPLICATION',
    parm('APPID', 'w7'),
    parm('PROVIDER-ID', 'dm.example'),
    parm('NAME', 'The DM server'),
    parm('TO-NAPID', 'N1'),
    part(
      'APPADDR',
      parm('ADDR', 'https://dm.example/dm'),
      parm('ADDRTYPE', 'IPV4'),
      part('PORT', parm('PORTNBR', '8443')),
    ),
    ...more,
  );
const document = (...inner: string[]) =>
  `<wap-provisioningdoc version="1.1">${inner.join('')}</wap-provisioningdoc>`;

/** A document as operators send it: a bearer, an application for the browser, and the DM account. */
const whole = document(
  part(
    'NAPDEF',
    parm('NAPID', 'N1'),
    parm('BEARER', 'GSM-GPRS'),
    parm('NAP-ADDRESS', 'internet'),
    parm('NAP-ADDRTYPE', 'APN'),
  ),
  part('APPLICATION', parm('APPID', 'w2'), parm('NAME', 'Browser')),
  account(
    auth('APPSRV', 'DIGEST', 'user', 'secret-c', 'nonce-c'),
    auth('APPSRV', 'HMAC', 'user', 'secret-c'),
    auth('CLIENT', 'BASIC', 'dm.example', 'secret-s'),
  ),
);

// conforms: BOO-5
test('the DM account of a document in XML is read', () => {
  assert.deepEqual(provisionedAccounts(decodeProvisioning(Buffer.from(whole))), [
    {
      serverId: 'dm.example',
      name: 'The DM server',
      address: 'https://dm.example:8443/dm',
      own: { name: 'user', secret: 'secret-c', nonce: Buffer.from('nonce-c'), schemes: ['md5', 'mac'] },
      peer: { name: 'dm.example', secret: 'secret-s', nonce: Buffer.alloc(0), schemes: ['basic'] },
    },
  ]);
});

// conforms: BOO-5
test('the same account is read from the WBXML of libwbxml, with and without its string table', () => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-prov-'));
  try {
    const [xml, wbxml] = [join(folder, 'a.xml'), join(folder, 'a.wbxml')] as const;
    const doctype =
      '<!DOCTYPE wap-provisioningdoc PUBLIC "-//WAPFORUM//DTD PROV 1.0//EN" "http://www.wapforum.org/DTD/prov.dtd">';
    writeFileSync(xml, `<?xml version="1.0"?>${doctype}${whole}`);
    const expected = provisionedAccounts(decodeProvisioning(Buffer.from(whole)));
    for (const flags of [[], ['-n'], ['-a'], ['-v', '1.1']]) {
      execFileSync('xml2wbxml', [...flags, '-o', wbxml, xml], { stdio: 'pipe' });
      assert.deepEqual(
        provisionedAccounts(decodeProvisioning(readFileSync(wbxml))),
        expected,
        flags.join(' '),
      );
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

// conforms: BOO-6
describe('a document is refused', () => {
  const good = auth('APPSRV', 'DIGEST', 'u', 's') + auth('CLIENT', 'DIGEST', 's', 's');
  const refused: [string, string | Buffer, string][] = [
    ['with another root', '<html/>', 'malformed'],
    ['without content', '', 'malformed'],
    ['with a document type', `<!DOCTYPE a>${whole}`, 'malformed'],
    ['that is truncated', whole.slice(0, 100), 'malformed'],
    ['without a DM account', document(part('APPLICATION', parm('APPID', 'w2'))), 'malformed'],
    [
      'without a ServerID',
      document(part('APPLICATION', parm('APPID', 'w7'), parm('ADDR', 'x'), good)),
      'malformed',
    ],
    [
      'without an address',
      document(part('APPLICATION', parm('APPID', 'w7'), parm('PROVIDER-ID', 'x'), good)),
      'malformed',
    ],
    ['without credentials of the server', document(account(auth('APPSRV', 'DIGEST', 'u', 's'))), 'malformed'],
    [
      'with credentials of an unknown type',
      document(account(auth('APPSRV', 'X509', 'u', 's'), auth('CLIENT', 'DIGEST', 's', 's'))),
      'malformed',
    ],
    [
      'that is too deep',
      document('<characteristic type="a">'.repeat(9) + '</characteristic>'.repeat(9)),
      'tooLarge',
    ],
    ['with too many elements', document(parm('a', 'b').repeat(600)), 'tooLarge'],
    ['that is too large', document(' '.repeat(20_000)), 'tooLarge'],
    ['with another public identifier', Buffer.from('03a4016a00', 'hex'), 'unsupportedFormat'],
  ];
  for (const [what, text, code] of refused)
    test(what, () => {
      assert.throws(
        () => provisionedAccounts(decodeProvisioning(Buffer.from(text))),
        (error) => error instanceof PosternError && error.code === code,
      );
    });
});
