import assert from 'node:assert/strict';
import { createSocket } from 'node:dgram';
import { once } from 'node:events';
import { describe, test } from 'node:test';
import { noEvents } from '../../src/base/events.ts';
import { SecureLinks } from '../../src/device/secure-links.ts';
import { SecureSocket } from '../../src/device/secure-socket.ts';
import type { Association } from '../../src/wire/secure/dtls/association.ts';
import { identity, key, SocketEnd } from '../wire/secure/dtls/socket-end.ts';

const limit = { timeout: 30_000 };

/** Links to a gateway on this machine, from an address that a test can change. */
function linksTo(port: number) {
  const said: string[] = [];
  const lost = Promise.withResolvers<void>();
  const own = { address: '127.0.0.1' };
  const links = new SecureLinks({
    listener: { request: () => {}, failed: () => {} },
    events: noEvents,
    local: '127.0.0.1',
    sourceTowards: () => own.address,
    opened: () => said.push('opened'),
    refused: (_base, name) => said.push(`refused ${name}`),
    lost: (_base, name) => {
      said.push(`lost ${name}`);
      lost.resolve();
    },
  });
  const base = `coaps://127.0.0.1:${port}`;
  return { links, said, own, base, lost: lost.promise };
}

describe('the associations of the reference device', limit, () => {
  test('requests to one gateway by one key share an association, also when they begin together', async () => {
    await using gateway = await SocketEnd.open();
    const { links, base, said } = linksTo(gateway.port);
    await using _links = links;
    const [one, two] = await Promise.all([
      links.towards(base, { identity, key }),
      links.towards(base, { identity, key }),
    ]);
    assert.equal(one, two);
    assert.equal(await links.towards(base, { identity, key }), one);
    assert.deepEqual(said, ['opened']);
    assert.equal(gateway.associations.length, 1);
  });

  test('a gateway may be given by its name', async () => {
    await using gateway = await SocketEnd.open();
    const { links } = linksTo(gateway.port);
    await using _links = links;
    await links.towards(`coaps://localhost:${gateway.port}`, { identity, key });
    const nowhere = links.towards('coaps://nowhere.invalid:5684', { identity, key });
    await assert.rejects(nowhere, { code: 'unavailable' });
  });

  test('a changed own address leads to a new association', async () => {
    await using gateway = await SocketEnd.open();
    const { links, base, own } = linksTo(gateway.port);
    await using _links = links;
    const before = await links.towards(base, { identity, key });
    own.address = '192.0.2.7';
    const after = await links.towards(base, { identity, key });
    assert.notEqual(after, before);
    assert.ok(before.ended.aborted);
    await gateway.until(2, 1);
  });

  test('an association that the gateway ends is told, and the next request opens another one', async () => {
    await using gateway = await SocketEnd.open();
    const { links, base, said, lost } = linksTo(gateway.port);
    await using _links = links;
    const before = await links.towards(base, { identity, key });
    gateway.dtls.revoke(identity);
    await lost;
    assert.ok(before.ended.aborted);
    assert.notEqual(await links.towards(base, { identity, key }), before);
    assert.deepEqual(said, ['opened', `lost ${identity}`, 'opened']);
  });

  test('a gateway that does not take the key is told from one that is silent', async () => {
    await using gateway = await SocketEnd.open();
    const { links, base, said } = linksTo(gateway.port);
    await using _links = links;
    const wrong = { identity, key: 'sesame-sesame-17' };
    await assert.rejects(links.towards(base, wrong), { code: 'unauthorized' });
    const silent = createSocket('udp4').bind(0, '127.0.0.1');
    await once(silent, 'listening');
    const { port } = silent.address();
    await assert.rejects(links.towards(`coaps://127.0.0.1:${port}`, wrong), { code: 'timeout' });
    silent.close();
    assert.deepEqual(said, [`refused ${identity}`]);
  });

  test('records after a gap in the numbers arrive; garbage, and datagrams of others, do nothing', async () => {
    await using gateway = await SocketEnd.open();
    const peer = { host: '127.0.0.1', port: gateway.port, identity, key, local: '127.0.0.1' };
    const socket = await SecureSocket.open(peer, noEvents);
    await gateway.until(1);
    const [association] = gateway.associations as [Association];
    const { port } = socket.address();
    const stranger = createSocket('udp4').bind(0, '127.0.0.1');
    await once(stranger, 'listening');
    stranger.send(Buffer.from('16fefd0000000000000000000401000000', 'hex'), port, '127.0.0.1');
    association.seal(23, Buffer.from('lost'), { bytes: (count: number) => new Uint8Array(count) } as never);
    for (let skipped = 0; skipped < 1000; skipped++)
      association.seal(23, Buffer.alloc(1), { bytes: (count: number) => new Uint8Array(count) } as never);
    const arrived = once(socket, 'message');
    gateway.dtls.send(association, Buffer.from('after a gap'));
    const [content, from] = await arrived;
    assert.deepEqual([String(content), from.port], ['after a gap', gateway.port]);
    stranger.close();
    socket.close();
    await gateway.until(1, 1);
  });
});
