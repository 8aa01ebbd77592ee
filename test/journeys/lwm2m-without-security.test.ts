import assert from 'node:assert/strict';
import { test } from 'node:test';
import { factory, gatewayOf, id, Party } from './lwm2m-party.ts';

type Site = Awaited<ReturnType<typeof gatewayOf>>;

/** Whether a datagram is of CoAP in clear. */
const isPlain = (bytes: Buffer) => bytes[0]! >> 6 === 1;

test('a client that has a key is asked through its association, and never in clear: its order waits for the next one', {
  timeout: 60_000,
}, async () => {
  const { gateway, events, port } = await gatewayOf();
  await using _gateway = gateway;
  await using blank = await Party.open(port, factory);
  const issued = await blank.pack();
  await using client = await Party.open(port, issued);
  assert.equal(await client.register(), '2.01');
  await events.until('registration.proven', { device: id });
  client.end.dtls.close(client.end.dtls.at('127.0.0.1', port)!);
  await events.until('dtls.closed', { identity: issued.identity });
  const toClient = client.end.captured.length;
  const orders = [
    { name: 'Get', uri: './3/0/0' },
    { name: 'Replace', uri: './3/0/15', data: 'UTC' },
    { name: 'Exec', uri: './3/0/4' },
  ] as const;
  const done = gateway.manage(id, orders, 50_000);
  const { fields } = await events.until('device.unreachable', { device: id });
  assert.match(String(fields.reason), /it has no association/);
  await using again = await Party.open(port, issued);
  assert.equal(await again.register(), '2.01');
  assert.deepEqual(
    (await done).map(({ status }) => status),
    [200, 200, 200],
  );
  const heard = [...client.end.captured.slice(toClient), ...again.end.captured];
  assert.equal(heard.filter(({ bytes }) => isPlain(bytes)).length, 0);
});

for (const [what, changes, end] of [
  [
    'that the configuration does not list any more',
    {},
    ({ gateway, config }: Site) =>
      gateway.reload(() => ({ ...config, lwm2m: { ...config.lwm2m!, device: [] } })),
  ],
  [
    'whose keys have ended',
    {},
    ({ parts }: Site) => parts.state.database.transaction(() => parts.state.credentials.delete(id)),
  ],
] as const)
  test(`a client ${what} is not asked in clear either`, { timeout: 60_000 }, async () => {
    const site = await gatewayOf(changes);
    const { gateway, events, port } = site;
    await using _gateway = gateway;
    await using blank = await Party.open(port, factory);
    const issued = await blank.pack();
    await using client = await Party.open(port, issued);
    assert.equal(await client.register(), '2.01');
    await events.until('registration.proven', { device: id });
    const toClient = client.end.captured.length;
    end(site);
    await events.until('dtls.closed', { identity: issued.identity });
    const order = gateway.manage(id, [{ name: 'Get', uri: './3/0/0' }], 1500);
    await assert.rejects(order, { code: 'timeout' });
    const heard = client.end.captured.slice(toClient);
    assert.equal(heard.filter(({ bytes }) => isPlain(bytes)).length, 0);
  });
