import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { Code } from '../../../../src/wire/coap/codes.ts';
import { pskSuites } from '../../../../src/wire/secure/dtls/suites.ts';
import { Foreign, freePort, without } from '../../../peers/foreign.ts';
import { writeCapture } from './capture.ts';
import { identity, key, SocketEnd } from './socket-end.ts';

const folder = mkdtempSync(join(tmpdir(), 'postern-dtls-'));
after(() => rmSync(folder, { recursive: true }));
const hex = key.toString('hex');
/** A confirmable GET without options. */
const get = Buffer.from('40010001', 'hex');
const psk = ['-psk_identity', identity, '-psk', hex];
const openClient = () => SocketEnd.open({ server: undefined as never });
/** Names that OpenSSL gives to suites. */
const openSslNames: Readonly<Record<string, string>> = {
  'PSK-AES128-CCM8': 'TLS_PSK_WITH_AES_128_CCM_8',
  'PSK-AES128-CCM': 'TLS_PSK_WITH_AES_128_CCM',
  'PSK-AES128-GCM-SHA256': 'TLS_PSK_WITH_AES_128_GCM_SHA256',
  'PSK-AES128-CBC-SHA256': 'TLS_PSK_WITH_AES_128_CBC_SHA256',
  'ECDHE-PSK-AES128-CBC-SHA256': 'TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256',
};
/** Priority strings of GnuTLS, and the suites that they lead to. */
const gnuTlsBase = 'NONE:+VERS-DTLS1.2:+COMP-NULL:+GROUP-SECP256R1:+SIGN-ALL';
const gnuTlsNames: Readonly<Record<string, string>> = {
  '+PSK:+AES-128-CCM-8:+AEAD': 'TLS_PSK_WITH_AES_128_CCM_8',
  '+PSK:+AES-128-CCM:+AEAD': 'TLS_PSK_WITH_AES_128_CCM',
  '+PSK:+AES-128-GCM:+AEAD': 'TLS_PSK_WITH_AES_128_GCM_SHA256',
  '+PSK:+AES-128-CBC:+SHA256': 'TLS_PSK_WITH_AES_128_CBC_SHA256',
  '+ECDHE-PSK:+AES-128-CBC:+SHA256': 'TLS_ECDHE_PSK_WITH_AES_128_CBC_SHA256',
};

describe('our server and clients of others', () => {
  for (const program of ['coap-client-openssl', 'coap-client-gnutls'])
    describe(program, { skip: without(program) }, () => {
      const uri = (port: number) => `coaps://127.0.0.1:${port}/x`;

      test('gets an answer', async () => {
        await using server = await SocketEnd.open();
        await using client = new Foreign(program, ['-u', identity, '-k', `${key}`, uri(server.port)]);
        assert.match(await client.ended(), /hello over DTLS/);
        assert.deepEqual(
          server.associations.map(({ identity: name, suite }) => [name, suite.name]),
          [[identity, 'TLS_PSK_WITH_AES_128_CCM_8']],
        );
      });

      for (const [name, args] of Object.entries({
        'a wrong key': ['-u', identity, '-k', 'sesame-sesame-17'],
        'an unknown identity': ['-u', 'ie', '-k', `${key}`],
      }))
        test(`gets none with ${name}`, async () => {
          await using server = await SocketEnd.open();
          await using client = new Foreign(program, ['-B', '3', ...args, uri(server.port)]);
          assert.doesNotMatch(await client.ended(), /hello/);
          assert.equal(server.associations.length, 0);
          assert.equal(server.dtls.footprint.associations, 0);
        });
    });

  describe('openssl s_client', { skip: without('openssl') }, () => {
    const connect = (port: number, ...more: string[]) =>
      new Foreign('openssl', ['s_client', '-dtls1_2', '-connect', `127.0.0.1:${port}`, ...psk, ...more]);

    for (const [name, suite] of Object.entries(openSslNames))
      test(name, async () => {
        await using server = await SocketEnd.open();
        await using client = connect(server.port, '-cipher', `${name}:@SECLEVEL=0`);
        await server.until(1);
        client.process.stdin.write(get);
        await client.prints(/hello over DTLS/);
        assert.equal(server.associations[0]?.suite.name, suite);
        client.process.stdin.end();
        await server.until(1, 1);
        assert.deepEqual(server.closings, ['the peer closed it']);
      });

    test('resumes its session', async () => {
      await using server = await SocketEnd.open();
      const file = join(folder, 'session.pem');
      await using first = connect(server.port, '-cipher', 'PSK-AES128-CCM8:@SECLEVEL=0', '-sess_out', file);
      await server.until(1);
      first.process.stdin.end();
      await first.ended();
      await using second = connect(server.port, '-cipher', 'PSK-AES128-CCM8:@SECLEVEL=0', '-sess_in', file);
      await server.until(2);
      second.process.stdin.write(get);
      await second.prints(/hello over DTLS/);
      second.process.stdin.end();
      assert.match(await second.ended(), /Reused, TLSv1.2/);
    });

    test('with small datagrams', async () => {
      await using server = await SocketEnd.open();
      const suite = 'ECDHE-PSK-AES128-CBC-SHA256';
      await using client = connect(server.port, '-cipher', `${suite}:@SECLEVEL=0`, '-mtu', '256');
      await server.until(1);
      client.process.stdin.write(get);
      await client.prints(/hello over DTLS/);
    });
  });

  describe('gnutls-cli', { skip: without('gnutls-cli') }, () => {
    for (const [priority, suite] of Object.entries(gnuTlsNames))
      test(priority, async () => {
        await using server = await SocketEnd.open();
        const proof = ['--pskusername', identity, '--pskkey', hex];
        const args = ['--udp', '-p', `${server.port}`, ...proof, '--priority', `${gnuTlsBase}:${priority}`];
        await using client = new Foreign('gnutls-cli', [...args, '127.0.0.1']);
        await server.until(1);
        assert.equal(server.associations[0]?.suite.name, suite);
        // This version of the program ends after a handshake of ECDHE_PSK, before it reads or writes.
        if (priority.startsWith('+ECDHE')) return;
        client.process.stdin.write(get);
        await client.prints(/hello over DTLS/);
      });

    test('gets no record beyond the size that it takes', async () => {
      await using server = await SocketEnd.open();
      const proof = ['--pskusername', identity, '--pskkey', hex, '--recordsize', '512'];
      const priority = `${gnuTlsBase}:+PSK:+AES-128-CCM-8:+AEAD`;
      await using _client = new Foreign('gnutls-cli', [
        ...['--udp', '-p', `${server.port}`, ...proof, '--priority', priority, '127.0.0.1'],
      ]);
      await server.until(1);
      const [association] = server.associations;
      assert.equal(association?.peerLimit, 512);
      assert.throws(() => server.dtls.send(association, Buffer.alloc(513)), { code: 'tooLarge' });
    });
  });
});

describe('our client and servers of others', () => {
  test('coap-server-openssl', { skip: without('coap-server-openssl') }, async () => {
    const port = await freePort();
    const args = ['-A', '127.0.0.1', '-p', `${port - 1}`, '-k', `${key}`, '-v', '6'];
    await using _server = new Foreign('coap-server-openssl', args);
    await using client = await openClient();
    const { association } = await connected(client, port);
    assert.equal(association.suite.name, 'TLS_PSK_WITH_AES_128_CCM_8');
    const answer = await client.coap.request('127.0.0.1', port, {
      code: Code.GET,
      options: [],
      payload: new Uint8Array(),
      timeout: 10_000,
    });
    assert.match(Buffer.from(answer.payload).toString(), /libcoap/);
  });

  for (const [name, suite] of Object.entries(openSslNames))
    test(`openssl s_server, ${name}`, { skip: without('openssl') }, async () => {
      const port = await freePort();
      const args = ['-accept', `127.0.0.1:${port}`, '-cipher', `${name}:@SECLEVEL=0`, ...psk];
      await using server = new Foreign('openssl', ['s_server', '-dtls1_2', '-nocert', ...args]);
      await using client = await openClient();
      const { association } = await connected(client, port);
      assert.equal(association.suite.name, suite);
      client.dtls.send(association, Buffer.from('said by us\n'));
      await server.prints(/said by us/);
    });

  for (const [priority, suite] of Object.entries(gnuTlsNames))
    test(`gnutls-serv, ${priority}`, { skip: without('gnutls-serv') }, async () => {
      const port = await freePort();
      const file = join(folder, 'psk.txt');
      writeFileSync(file, `${identity}:${hex}\n`);
      const args = ['--pskpasswd', file, '-p', `${port}`, '--priority', `${gnuTlsBase}:${priority}`];
      await using server = new Foreign('gnutls-serv', ['--udp', '--echo', ...args]);
      await using client = await openClient();
      const { association } = await connected(client, port);
      assert.equal(association.suite.name, suite);
      client.dtls.send(association, Buffer.from('said by us\n'));
      await server.prints(/said by us/);
    });
});

/** Shakes hands with a server that may not yet listen: its port answers that nobody is there, which is no error of ours. */
async function connected(client: SocketEnd, port: number) {
  return await client.dtls.connect({ address: '127.0.0.1', port, local: '' }, { identity, key });
}

describe('tshark takes our records apart with the keys', { skip: without('tshark') }, () => {
  // This version does not know the suites of RFC 8442.
  for (const suite of pskSuites.filter(({ id }) => id < 0xd000))
    for (const wantsCid of [true, false])
      test(`${suite.name}${wantsCid ? ' with connection IDs' : ''}`, async () => {
        await using server = await SocketEnd.open();
        await using client = await SocketEnd.open({ server: undefined as never, suites: [suite] });
        await client.dtls.connect(
          { address: '127.0.0.1', port: server.port, local: '' },
          { identity, key, wantsCid },
        );
        await client.coap.request('127.0.0.1', server.port, {
          code: Code.GET,
          options: [],
          payload: new Uint8Array(),
          timeout: 10_000,
        });
        const capture = join(folder, 'capture.pcap');
        const keys = join(folder, 'keys.log');
        writeCapture(capture, client.captured);
        writeFileSync(keys, `${client.keyLog.join('\n')}\n`);
        assert.deepEqual(client.keyLog, server.keyLog);
        const ports = ['-d', `udp.port==${server.port},dtls`, '-d', `dtls.port==${server.port},coap`];
        const seen = execFileSync('tshark', ['-r', capture, '-o', `tls.keylog_file:${keys}`, ...ports], {
          stdio: ['ignore', 'pipe', 'ignore'],
        }).toString();
        assert.match(seen, /Client Hello\n.*Hello Verify Request\n.*Client Hello\n.*Server Hello, /);
        assert.match(seen, /Client Key Exchange, Change Cipher Spec, Finished/);
        assert.match(seen, /CON, MID:\d+, GET/);
        assert.match(seen, /ACK, MID:\d+, 2.05 Content/);
        assert.equal(
          client.captured.some(({ from, bytes }) => from.port === server.port && bytes[0] === 25),
          wantsCid,
        );
      });
});
