import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { type AddressInfo, createServer as createTcpServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, test } from 'node:test';
import { type ConnectionOptions, connect, createServer, type TlsOptions } from 'node:tls';
import { errorText } from '../../../src/wire/tunnel/mqtt-reasons.ts';
import { demandUsable, mqttSettings } from '../../../src/wire/tunnel/mqtt-settings.ts';
import { issuedBy, newAuthority } from '../../peers/certificates.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-reasons-'));
after(() => rmSync(folder, { recursive: true, force: true }));
const other = join(folder, 'other');
mkdirSync(other);
for (const each of [folder, other]) newAuthority(each);
const host = ['subjectAltName=DNS:localhost'];
const made = {
  broker: issuedBy(folder, 'broker', '/CN=broker', host),
  'gw-1': issuedBy(folder, 'gw-1'),
  stranger: issuedBy(other, 'stranger'),
};
const files = ({ cert, key }: { cert: string; key: string }) => ({
  cert: readFileSync(cert),
  key: readFileSync(key),
});
const ca = readFileSync(join(folder, 'ca.pem'));
/** A certificate of the broker that ended at its beginning. */
const ended = () => {
  const cert = join(folder, 'ended.pem');
  const by = ['-CA', join(folder, 'ca.pem'), '-CAkey', join(folder, 'ca.key'), '-days', '0'];
  execFileSync('openssl', ['x509', '-req', '-in', join(folder, 'broker.csr'), ...by, '-out', cert], {
    stdio: 'pipe',
  });
  return files({ cert, key: made.broker.key });
};

/** What is said of the error of a client that connects to a server. */
async function said(server: TlsOptions | 'no TLS', client: ConnectionOptions): Promise<string> {
  await using stack = new AsyncDisposableStack();
  const listener =
    server === 'no TLS'
      ? createTcpServer((socket) => socket.end('not TLS'))
      : createServer({ ...files(made.broker), ...server }).on('tlsClientError', () => {});
  stack.defer(() => void listener.close());
  listener.listen(0, '127.0.0.1');
  await once(listener, 'listening');
  const { port } = listener.address() as AddressInfo;
  const socket = connect({ host: '127.0.0.1', port, servername: 'localhost', ca, ...client });
  stack.defer(() => void socket.destroy());
  // With TLS 1.3 the client learns of a refusal when it reads.
  socket.resume();
  return errorText(await new Promise<Error>((resolve) => socket.once('error', resolve)));
}

const demanding = { requestCert: true, rejectUnauthorized: true, ca } as const;
const cases: readonly (readonly [string, TlsOptions | 'no TLS', ConnectionOptions, RegExp])[] = [
  [
    'the broker wants a certificate',
    demanding,
    {},
    /^the broker refuses the client certificate: certificate required$/,
  ],
  [
    'a broker of another authority',
    {},
    { ca: readFileSync(join(other, 'ca.pem')) },
    /^no authority in mqtt\.ca has signed the certificate of the broker \(unable to verify the first certificate\)$/,
  ],
  [
    'a broker whose certificate has ended',
    ended(),
    {},
    /^the certificate of the broker: certificate has expired, by the clock of this machine$/,
  ],
  ['another host', {}, { servername: 'elsewhere' }, /altnames: Host: elsewhere/],
  [
    'no version in common',
    { minVersion: 'TLSv1.3' },
    { maxVersion: 'TLSv1.2' },
    /^the broker refuses TLS: protocol version$/,
  ],
  ['a port without TLS', 'no TLS', {}, /^TLS with the broker: wrong version number$/],
];
for (const [name, server, client, expected] of cases)
  test(`what is said of TLS: ${name}`, async () => assert.match(await said(server, client), expected));

test('what is said of an alert about the certificate, of which Node tells only in time', () => {
  const error = (code: string, reason: string) =>
    Object.assign(new Error('4043:error:0A000418:SSL routines:…\n'), { code, reason });
  assert.equal(
    errorText(error('ERR_SSL_TLSV1_ALERT_UNKNOWN_CA', 'tlsv1 alert unknown ca')),
    'the broker refuses the client certificate: unknown ca',
  );
  assert.equal(
    errorText(error('ERR_SSL_SSL/TLS_ALERT_CERTIFICATE_EXPIRED', 'ssl/tls alert certificate expired')),
    'the broker refuses the client certificate: certificate expired',
  );
});

test('a key of another certificate: the message names the files, and the key of the configuration', () => {
  const section = {
    url: 'mqtts://b',
    protocol: 'auto',
    cert: made['gw-1'].cert,
    key: made.stranger.key,
  } as const;
  const none = { username: undefined, password: undefined, keepalive: undefined, ca: undefined };
  assert.throws(() => demandUsable(mqttSettings({ ...section, ...none, 'max-packet': undefined })), {
    code: 'configuration',
    message: `mqtt.key: ${made.stranger.key} is not the key of the certificate ${made['gw-1'].cert}`,
  });
});
