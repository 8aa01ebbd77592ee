import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Site } from '../../journeys/site.ts';
import { Foreign, without } from '../../peers/foreign.ts';

const [identity, key] = ['urn:dev:small:1', 'sesame-sesame-16'];
const proof = { psk: Buffer.from(key).toString('hex') };
/** A confirmable GET of one block of /.well-known/core; of 256 bytes, but for the first one, which leaves that to the gateway. */
const get = (number: number) =>
  Buffer.concat([
    Buffer.from([0x40, 1, 0, 1 + number, 0xbb]),
    Buffer.from('.well-known'),
    Buffer.from([4]),
    Buffer.from('core'),
    ...(number > 0 ? [Buffer.from([0xc1, (number << 4) | 4])] : []),
  ]);
const servers = Array.from({ length: 12 }, (_, at) => `dm-${at}.example`);
const coaps = { port: 0, device: [{ identity, key }] };
const priority = 'NONE:+VERS-DTLS1.2:+COMP-NULL:+GROUP-SECP256R1:+SIGN-ALL:+PSK:+AES-128-CCM-8:+AEAD';

/** Peers that take at most 512 bytes in a record: by RFC 6066 and by RFC 8449. */
const peers: Readonly<Record<string, (port: number) => Foreign>> = {
  openssl: (port) =>
    new Foreign('openssl', [
      ...['s_client', '-dtls1_2', '-quiet', '-connect', `127.0.0.1:${port}`, '-maxfraglen', '512'],
      ...['-psk_identity', identity, '-psk', proof.psk, '-cipher', 'PSK-AES128-CCM8:@SECLEVEL=0'],
    ]),
  'gnutls-cli': (port) =>
    new Foreign('gnutls-cli', [
      ...['--udp', '-p', `${port}`, '--pskusername', identity, '--pskkey', proof.psk, '--recordsize', '512'],
      ...['--priority', priority, '127.0.0.1'],
    ]),
};

describe('a peer with small records gets what is larger in blocks', { timeout: 60_000 }, () => {
  for (const [program, open] of Object.entries(peers))
    test(program, { skip: without(program) }, async () => {
      await using site = new Site('mqtt://127.0.0.1:1');
      const gateway = await site.gateway([], { coaps, tunnel: { servers } }, false);
      await using client = open(gateway.coapsPort!);
      await site.gatewayEvents.until('dtls.opened', { identity });
      client.process.stdin.write(get(0));
      await client.prints(/\xff<[\s\S]{255}/);
      // 256 bytes, and the first ones of the links.
      assert.doesNotMatch(client.output, /\xff<[\s\S]{256}/);
      for (let number = 1; !/oma\.gw\.image/.test(client.output); number++) {
        const { length } = client.output;
        client.process.stdin.write(get(number));
        await client.prints(new RegExp(`^.{${length + 30},}`, 's'));
      }
      for (const server of servers)
        assert.ok(client.output.replaceAll(/`[\s\S]{4,12}?\xff/g, '').includes(server));
      assert.equal(site.gatewayEvents.count('background.failed'), 0);
    });
});
