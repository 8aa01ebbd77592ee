import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import type { Certificates } from '../../../../src/wire/secure/dtls/certificates.ts';
import { certificateSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { Foreign, freePort, without } from '../../../peers/foreign.ts';
import { authority, certificatesOf, type Issued, issue } from './authority.ts';
import { writeCapture } from './capture.ts';
import { SocketEnd } from './socket-end.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-certificates-'));
after(() => rmSync(folder, { recursive: true }));
const file = (name: string, content: string): string => {
  const path = join(folder, name);
  writeFileSync(path, content, { mode: 0o600 });
  return path;
};
/** A confirmable GET without options. */
const get = Buffer.from('40010001', 'hex');

const root = authority('Test root');
const middle = authority('Test authority of devices', {}, root);
const stranger = authority('Another root');
const server = issue(
  {
    commonNames: ['localhost'],
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    purposes: [1],
    keyUsage: 0x80,
  },
  root,
);
const deviceName = 'urn:dev:ops:32473-device';
const device = issue(
  { uris: [deviceName], commonNames: ['a device'], purposes: [2], keyUsage: 0x80 },
  middle,
);
const unknown = issue({ commonNames: ['a device'] }, stranger);

const rootFile = file('root.pem', root.pem);
const middleFile = file('middle.pem', middle.pem);
const filesOf = (name: string, { pem, keyPem, publicPem }: Issued, chain = '') => ({
  certificate: file(`${name}.pem`, pem + chain),
  key: file(`${name}.key`, keyPem),
  publicKey: file(`${name}.pub`, publicPem),
});
const plainFiles = filesOf('plain', issue({ uris: [deviceName] }, root));
const deviceFiles = filesOf('device', device, middle.pem);
/** For OpenSSL, which takes the certificates above the own one from another file. */
const chainFiles = { ...deviceFiles, above: ['-cert_chain', middleFile] };
const unknownFiles = filesOf('unknown', unknown);
const serverFiles = filesOf('server', server);

const served = certificatesOf(server, { authorities: [root], rawKeys: { 'raw device': device } });
const open = (refusals: string[] = [], certificates = served) =>
  SocketEnd.open({
    server: { keyOf: () => undefined, certificates: () => certificates },
    refused: (_, reason) => refusals.push(reason),
  });
const openClient = (suites = certificateSuites) => SocketEnd.open({ server: undefined as never, suites });

/** Names that OpenSSL gives to suites. */
const openSslNames: Readonly<Record<string, string>> = {
  'ECDHE-ECDSA-AES128-CCM8': 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8',
  'ECDHE-ECDSA-AES128-CCM': 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM',
  'ECDHE-ECDSA-AES128-GCM-SHA256': 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256',
};
/** Priority strings of GnuTLS, and the suites that they lead to. */
const gnuTlsBase = 'NONE:+VERS-DTLS1.2:+COMP-NULL:+GROUP-SECP256R1:+SIGN-ECDSA-SHA256:+ECDHE-ECDSA:+AEAD';
const gnuTlsNames: Readonly<Record<string, string>> = {
  '+AES-128-CCM-8': 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM_8',
  '+AES-128-CCM': 'TLS_ECDHE_ECDSA_WITH_AES_128_CCM',
  '+AES-128-GCM': 'TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256',
};
const rawTypes = '+CTYPE-CLI-RAWPK:+CTYPE-SRV-RAWPK';
const x509Types = '+CTYPE-CLI-X509:+CTYPE-SRV-X509';

describe('our server and clients of others', () => {
  for (const program of ['coap-client-openssl', 'coap-client-gnutls'])
    describe(program, { skip: without(program) }, () => {
      const ask = (port: number, ...args: string[]) =>
        new Foreign(program, ['-B', '5', ...args, `coaps://localhost:${port}/x`]);

      test('gets an answer with its certificate', async () => {
        await using gateway = await open();
        // Some of them send the first certificate of the file alone.
        const { certificate, key } = plainFiles;
        await using client = ask(gateway.port, '-c', certificate, '-j', key, '-C', rootFile);
        assert.match(await client.ended(), /hello over DTLS/);
        assert.equal(gateway.associations[0]?.identity, deviceName);
      });

      test('gets none with the certificate of another authority', async () => {
        const refusals: string[] = [];
        await using gateway = await open(refusals);
        const { certificate, key } = unknownFiles;
        await using client = ask(gateway.port, '-c', certificate, '-j', key, '-C', rootFile);
        assert.doesNotMatch(await client.ended(), /hello/);
        assert.match(refusals[0] ?? '', /no configured authority has signed the certificate of CN=a device/);
      });

      test('gets none without a certificate', async () => {
        const refusals: string[] = [];
        await using gateway = await open(refusals);
        await using client = ask(gateway.port, '-R', rootFile);
        assert.doesNotMatch(await client.ended(), /hello/);
        assert.deepEqual(refusals, ['the peer has no certificate']);
      });
    });

  test('coap-client-gnutls gets an answer with its raw public key', {
    skip: without('coap-client-gnutls'),
  }, async () => {
    await using gateway = await open();
    const keys = file('raw.pem', device.key.export({ type: 'sec1', format: 'pem' }).toString());
    await using client = new Foreign('coap-client-gnutls', [
      ...['-B', '5', '-M', keys],
      `coaps://localhost:${gateway.port}/x`,
    ]);
    assert.match(await client.ended(), /hello over DTLS/);
    assert.equal(gateway.associations[0]?.identity, 'raw device');
  });

  describe('openssl s_client', { skip: without('openssl') }, () => {
    const connect = (
      port: number,
      { certificate, key, above = [] }: { certificate: string; key: string; above?: string[] },
      ...more: string[]
    ) =>
      new Foreign('openssl', [
        ...['s_client', '-dtls1_2', '-connect', `127.0.0.1:${port}`, '-CAfile', rootFile],
        ...['-verify_return_error', '-verify_hostname', 'localhost'],
        ...['-cert', certificate, ...above, '-key', key, ...more],
      ]);

    for (const [name, suite] of Object.entries(openSslNames))
      test(name, async () => {
        await using gateway = await open();
        await using client = connect(gateway.port, chainFiles, '-cipher', `${name}:@SECLEVEL=0`);
        await gateway.until(1);
        client.process.stdin.write(get);
        await client.prints(/hello over DTLS/);
        assert.equal(gateway.associations[0]?.suite.name, suite);
        assert.equal(gateway.associations[0]?.identity, deviceName);
        client.process.stdin.end();
        await gateway.until(1, 1);
        assert.match(client.output, /Verify return code: 0 \(ok\)/);
      });

    test('resumes its session', async () => {
      await using gateway = await open();
      const session = join(folder, 'session.pem');
      await using first = connect(gateway.port, chainFiles, '-sess_out', session);
      await gateway.until(1);
      first.process.stdin.end();
      await first.ended();
      await using second = connect(gateway.port, chainFiles, '-sess_in', session);
      await gateway.until(2);
      second.process.stdin.write(get);
      await second.prints(/hello over DTLS/);
      second.process.stdin.end();
      assert.match(await second.ended(), /Reused, TLSv1.2/);
      assert.equal(gateway.associations[1]?.identity, deviceName);
    });

    test('with small datagrams, so that each Certificate comes in fragments', async () => {
      await using gateway = await open();
      await using client = connect(gateway.port, chainFiles, '-mtu', '256');
      await gateway.until(1);
      client.process.stdin.write(get);
      await client.prints(/hello over DTLS/);
    });

    test('is told why its certificate is refused', async () => {
      await using gateway = await open();
      await using client = connect(gateway.port, unknownFiles);
      assert.match(await client.ended(), /alert unknown ca/);
    });
  });

  describe('gnutls-cli', { skip: without('gnutls-cli') }, () => {
    const connect = (port: number, priority: string, ...more: string[]) =>
      new Foreign('gnutls-cli', [
        ...['--udp', '-p', `${port}`, '--priority', `${gnuTlsBase}:${priority}`, ...more],
        '127.0.0.1',
      ]);
    const talks = async (gateway: SocketEnd, client: Foreign, suite: string | undefined, name: string) => {
      await gateway.until(1);
      client.process.stdin.write(get);
      await client.prints(/hello over DTLS/);
      assert.equal(gateway.associations[0]?.suite.name, suite);
      assert.equal(gateway.associations[0]?.identity, name);
    };
    for (const [cipher, suite] of Object.entries(gnuTlsNames)) {
      test(`X.509, ${cipher}`, async () => {
        await using gateway = await open();
        const { certificate, key } = deviceFiles;
        const proof = ['--x509cafile', rootFile, '--x509certfile', certificate, '--x509keyfile', key];
        await using client = connect(gateway.port, `${x509Types}:${cipher}`, ...proof);
        await talks(gateway, client, suite, deviceName);
      });
      test(`raw public keys, ${cipher}`, async () => {
        await using gateway = await open();
        const { publicKey, key } = deviceFiles;
        const proof = ['--rawpkfile', publicKey, '--rawpkkeyfile', key, '--insecure'];
        await using client = connect(gateway.port, `${rawTypes}:${cipher}`, ...proof);
        await talks(gateway, client, suite, 'raw device');
      });
    }
    test('is refused with a raw public key that is not known', async () => {
      const refusals: string[] = [];
      await using gateway = await open(refusals);
      const { publicKey, key } = unknownFiles;
      const proof = ['--rawpkfile', publicKey, '--rawpkkeyfile', key, '--insecure'];
      await using client = connect(gateway.port, `${rawTypes}:+AES-128-CCM-8`, ...proof);
      assert.match(await client.ended(), /Certificate unknown|alert \[46\]|unknown certificate/i);
      assert.deepEqual(refusals, ['the raw public key is not known']);
    });
  });
});

describe('our client and servers of others', () => {
  const x509 = certificatesOf(device, { chain: [device, middle], authorities: [root] });
  const connected = (client: SocketEnd, port: number, certificates: Certificates, serverName: string) =>
    client.dtls.connect(
      { address: '127.0.0.1', port, local: '' },
      { identity: 'own', certificates: { ...certificates, serverName } },
    );

  for (const [name, suite] of Object.entries(openSslNames))
    test(`openssl s_server, ${name}`, { skip: without('openssl') }, async () => {
      const port = await freePort();
      const { certificate, key } = serverFiles;
      await using other = new Foreign('openssl', [
        ...['s_server', '-dtls1_2', '-accept', `127.0.0.1:${port}`, '-cipher', `${name}:@SECLEVEL=0`],
        ...['-cert', certificate, '-key', key, '-CAfile', rootFile, '-Verify', '3', '-verify_return_error'],
      ]);
      await using client = await openClient();
      const { association } = await connected(client, port, x509, 'localhost');
      assert.equal(association.suite.name, suite);
      client.dtls.send(association, Buffer.from('said by us\n'));
      await other.prints(/said by us/);
      assert.match(other.output, /depth=0/);
    });

  const gnuTls = (port: number, priority: string, ...more: string[]) =>
    new Foreign('gnutls-serv', [
      ...['--udp', '--echo', '-p', `${port}`, '--priority', `${gnuTlsBase}:${priority}`, ...more],
    ]);
  for (const [cipher, suite] of Object.entries(gnuTlsNames)) {
    test(`gnutls-serv with X.509, ${cipher}`, { skip: without('gnutls-serv') }, async () => {
      const port = await freePort();
      const { certificate, key } = serverFiles;
      const proof = ['--x509cafile', rootFile, '--x509certfile', certificate, '--x509keyfile', key];
      await using other = gnuTls(
        port,
        `${x509Types}:${cipher}`,
        ...proof,
        '--require-client-cert',
        '--verify-client-cert',
      );
      await using client = await openClient();
      const { association } = await connected(client, port, x509, '127.0.0.1');
      assert.equal(association.suite.name, suite);
      client.dtls.send(association, Buffer.from('said by us\n'));
      await other.prints(/said by us/);
    });
    test(`gnutls-serv with raw public keys, ${cipher}`, { skip: without('gnutls-serv') }, async () => {
      const port = await freePort();
      const { publicKey, key } = serverFiles;
      await using other = gnuTls(
        port,
        `${rawTypes}:${cipher}`,
        '--rawpkfile',
        publicKey,
        '--rawpkkeyfile',
        key,
      );
      await using client = await openClient();
      const raw = certificatesOf(device, { chain: [], rawKeys: { gateway: server } });
      const { association } = await connected(client, port, raw, 'gateway');
      assert.equal(association.suite.name, suite);
      client.dtls.send(association, Buffer.from('said by us\n'));
      await other.prints(/said by us/);
    });
  }

  test('a server with the name of another is refused, and told so', {
    skip: without('openssl'),
  }, async () => {
    const port = await freePort();
    const { certificate, key } = serverFiles;
    await using other = new Foreign('openssl', [
      ...['s_server', '-dtls1_2', '-accept', `127.0.0.1:${port}`, '-cert', certificate, '-key', key],
    ]);
    await using client = await openClient();
    await assert.rejects(connected(client, port, x509, 'gateway.example'), /that of another server/);
    await other.prints(/alert bad certificate/);
  });
});

describe('tshark takes our records apart with the keys', { skip: without('tshark') }, () => {
  const raw = certificatesOf(device, { chain: [], rawKeys: { gateway: server } });
  const x509 = certificatesOf(device, { chain: [device, middle], authorities: [root] });
  for (const suite of certificateSuites)
    for (const [kind, certificates, serverName] of [
      ['X.509', x509, 'localhost'],
      ['raw public keys', raw, 'gateway'],
    ] as const)
      test(`${suite.name} with ${kind}`, async () => {
        await using gateway = await open();
        await using client = await openClient([suite]);
        await client.dtls.connect(
          { address: '127.0.0.1', port: gateway.port, local: '' },
          { identity: 'own', certificates: { ...certificates, serverName } },
        );
        await client.coap.ping('127.0.0.1', gateway.port, 5000);
        const capture = join(folder, 'capture.pcap');
        const keys = file('keys.log', `${client.keyLog.join('\n')}\n`);
        writeCapture(capture, client.captured);
        const ports = ['-d', `udp.port==${gateway.port},dtls`, '-d', `dtls.port==${gateway.port},coap`];
        const dissect = (...args: string[]) =>
          execFileSync('tshark', ['-r', capture, '-o', `tls.keylog_file:${keys}`, ...ports, ...args], {
            stdio: ['ignore', 'pipe', 'ignore'],
          }).toString();
        assert.match(dissect(), /Certificate, Server Key Exchange, Certificate Request, Server Hello Done/);
        assert.match(
          dissect(),
          /Certificate, Client Key Exchange, Certificate Verify, Change Cipher Spec, Finished/,
        );
        assert.match(dissect(), /Empty Message/);
        assert.doesNotMatch(dissect('-V'), /Malformed|Expert Info \(Error/);
      });
});
