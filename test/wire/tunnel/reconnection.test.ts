import assert from 'node:assert/strict';
import { chmodSync, mkdtempSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { startAedes, startMosquitto } from '../../peers/brokers.ts';
import { selfSigned } from '../../peers/certificates.ts';
import { CountingProxy } from '../../peers/counting-proxy.ts';
import { startHostileBroker } from '../../peers/hostile-broker.ts';
import { linkTo } from './link-rig.ts';

const limit = { timeout: 30_000 };
const minutes = 60_000;

/** Moves time to the next attempt to connect, and waits until it has failed or has become a connection. */
async function nextAttempt({
  link,
  clock,
}: Pick<ReturnType<typeof linkTo>, 'link' | 'clock'>): Promise<void> {
  clock.advance(clock.next!);
  const { promise, resolve } = Promise.withResolvers<void>();
  const look = () => {
    if (link.connected || link.retryInSeconds !== undefined) resolve();
    else setImmediate(look);
  };
  // The clock has just ended the pause, but the link has not yet noticed.
  setImmediate(look);
  await promise;
}

describe('delays grow until a connection was stable for minutes', limit, () => {
  test('a broker that kicks after each SUBACK sees few connections, and is left alone longer and longer', async () => {
    await using broker = await startHostileBroker({ subscribed: (client) => client.kick() });
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    let passed = 0;
    let ended = events.next('mqtt.disconnected');
    for (;;) {
      const { fields } = await ended;
      assert.match(String(fields.reason), /^the broker closed the connection/);
      const wait = clock.next!;
      assert.ok(wait <= 90_000, 'the cap, and its jitter');
      if (passed + wait > 40_000) break;
      passed += wait;
      ended = events.next('mqtt.disconnected');
      clock.advance(wait);
    }
    assert.ok(broker.connects.length <= 9, `${broker.connects.length} connections in 40 s`);
    assert.match(link.problems.join(), /perhaps another client connects as gw-1/);
  });

  test('three minutes of connection begin the delays anew; two do not', async () => {
    await using broker = await startHostileBroker();
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    const kick = async (after: number): Promise<number> => {
      await events.next('mqtt.connected');
      clock.advance(after);
      const ended = events.next('mqtt.disconnected');
      broker.behaviour = { published: (_packet, client) => client.kick(0x97) };
      await assert.rejects(link.publish({ topic: 'x', payload: Buffer.from('x') }), { code: 'unavailable' });
      await ended;
      const wait = clock.next!;
      clock.advance(wait);
      return wait;
    };
    const waits = [
      await kick(0),
      await kick(0),
      await kick(2 * minutes),
      await kick(0),
      await kick(3 * minutes),
    ];
    const centres = [500, 1000, 2000, 4000, 500];
    for (const [at, wait] of waits.entries())
      assert.ok(wait >= centres[at]! / 2 && wait <= centres[at]! * 1.5, `delay ${at + 1} was ${wait} ms`);
  });

  test('two clients of one name: each is told why, and they throw each other out rarely', async () => {
    await using broker = await startHostileBroker();
    const one = linkTo(broker.url, { protocol: 5 });
    await using _one = one.link;
    await one.events.until('mqtt.connected');
    let thrownOut = one.events.next('mqtt.disconnected');
    const other = linkTo(broker.url, { protocol: 5 });
    await using _other = other.link;
    let passed = 0;
    let count = 0;
    for (let [out, next] = [one, other]; ; [out, next] = [next, out]) {
      const { fields } = await thrownOut;
      count++;
      assert.match(String(fields.reason), /Session taken over \(0x8E\); another client connected as gw-1/);
      const wait = out.clock.next!;
      passed += wait;
      if (passed > 20_000) break;
      thrownOut = next.events.next('mqtt.disconnected');
      out.clock.advance(wait);
    }
    assert.ok(count <= 14, `${count} times in 20 s`);
    for (const { link, events } of [one, other]) {
      assert.equal(events.count('mqtt.rival'), 1, 'said once');
      assert.match(link.problems.join(), /another client connected as gw-1/);
    }
  });

  test('a rival is forgotten when the connection has been stable', async () => {
    await using broker = await startHostileBroker();
    let settled = 0;
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 }, { settled: () => settled++ });
    await using _ = link;
    broker.behaviour = { subscribed: (client) => client.kick(0x8e) };
    await events.until('mqtt.disconnected');
    broker.behaviour = {};
    clock.advance(clock.next!);
    await events.until('mqtt.connected');
    await events.next('mqtt.connected');
    assert.ok(link.rival);
    clock.advance(3 * minutes);
    assert.deepEqual([link.rival, settled, link.problems], [undefined, 1, []]);
  });
});

describe('reasons', limit, () => {
  test('what the broker says is in the event, and in the status with the time of the next attempt', async () => {
    await using broker = await startHostileBroker({
      connack: () => ({ code: 0x86, properties: { reasonString: 'no such user' } }),
    });
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    const { fields } = await events.until('mqtt.connect-failed');
    assert.equal(fields.reason, 'the broker refuses the connection: Bad User Name or Password (0x86)');
    assert.deepEqual(link.problems, [fields.reason]);
    assert.equal(link.retryInSeconds, 1);
    broker.behaviour = {
      subscribed: (client) =>
        client.kick(0x9d, { serverReference: 'other.example', reasonString: 'line\u0007feed' }),
    };
    clock.advance(clock.next!);
    const ended = await events.until('mqtt.disconnected');
    assert.equal(
      ended.fields.reason,
      'the broker ended the connection: Server moved (0x9D); line\ufffdfeed; the broker names another one: other.example',
    );
  });

  test('the same failure is said once; another one, and one after a connection, are said', async () => {
    await using broker = await startMosquitto();
    const { link, clock, events } = linkTo(broker.url, { protocol: 5 });
    await using _ = link;
    await events.until('mqtt.connected');
    await broker.stop();
    const { fields } = await events.until('mqtt.disconnected');
    assert.match(String(fields.reason), /Server shutting down|closed the connection/);
    for (let attempt = 0; attempt < 5; attempt++) {
      await nextAttempt({ link, clock });
    }
    assert.equal(events.count('mqtt.connect-failed'), 1);
    assert.match(link.problems.join(), /ECONNREFUSED/);
    await broker.restart();
    clock.advance(clock.next!);
    await events.next('mqtt.connected');
    assert.deepEqual([link.problems, link.retryInSeconds], [[], undefined]);
  });
});

describe('the MQTT version', limit, () => {
  test('a broker that restarts keeps MQTT 5', async () => {
    await using broker = await startMosquitto();
    const { link, clock, events } = linkTo(broker.url, { protocol: 'auto' });
    await using _ = link;
    await events.until('mqtt.connected', { protocol: 5 });
    await broker.stop();
    await events.until('mqtt.disconnected');
    for (let attempt = 0; attempt < 4; attempt++) await nextAttempt({ link, clock });
    await broker.restart();
    const connected = events.next('mqtt.connected');
    clock.advance(clock.next!);
    assert.equal((await connected).fields.protocol, 5);
    assert.equal(events.count('mqtt.version-refused'), 0);
  });

  for (const [what, code] of [
    ['of MQTT 5', 0x84],
    ['of MQTT 3.1.1, to a CONNECT of MQTT 5', 1],
  ] as const)
    test(`a refusal ${what}: 3.1.1 at once, and 5 again after an hour`, async () => {
      await using broker = await startHostileBroker({
        connack: ({ protocolVersion }) => ({ code: protocolVersion === 5 ? code : 0 }),
      });
      const { link, clock, events } = linkTo(broker.url, { protocol: 'auto' });
      await using _ = link;
      await events.until('mqtt.version-refused', { protocol: 5, next: 4 });
      clock.advance(0);
      await events.until('mqtt.connected', { protocol: 4 });
      assert.deepEqual([clock.next! > 0, events.count('mqtt.connect-failed')], [true, 0]);
      broker.behaviour = {};
      const reconnect = async () => {
        broker.behaviour = { published: (_packet, client) => client.kick() };
        await assert.rejects(link.publish({ topic: 'x', payload: Buffer.from('x') }));
        const connected = events.next('mqtt.connected');
        clock.advance(clock.next!);
        return (await connected).fields.protocol;
      };
      assert.equal(await reconnect(), 4);
      clock.advance(60 * minutes);
      assert.equal(await reconnect(), 5);
    });

  test('a broker that closes without a CONNACK three times: 3.1.1, checked once after five minutes, then hourly', async () => {
    await using broker = await startHostileBroker({
      connack: ({ protocolVersion }) => (protocolVersion === 5 ? 'close' : { code: 0 }),
    });
    const { link, clock, events } = linkTo(broker.url, { protocol: 'auto' });
    await using _ = link;
    await events.until('mqtt.connect-failed', { reason: 'the broker closed the connection' });
    for (let attempt = 1; attempt < 3; attempt++) await nextAttempt({ link, clock });
    await events.until('mqtt.version-refused');
    clock.advance(0);
    await events.until('mqtt.connected', { protocol: 4 });
    const versions = () => broker.connects.map(({ protocolVersion }) => protocolVersion);
    assert.deepEqual(versions(), [5, 5, 5, 4]);
    clock.advance(5 * minutes - 1);
    assert.equal(link.connected, true);
    let ended = events.next('mqtt.disconnected', { reason: 'MQTT 5 is tried again' });
    clock.advance(1);
    await ended;
    const refused = events.next('mqtt.version-refused');
    clock.advance(clock.next!);
    await refused;
    let connected = events.next('mqtt.connected', { protocol: 4 });
    clock.advance(0);
    await connected;
    assert.deepEqual(versions(), [5, 5, 5, 4, 5, 4], 'one more closed connection is enough');
    clock.advance(59 * minutes);
    assert.equal(link.connected, true, 'a connection that works is not ended again');
    ended = events.next('mqtt.disconnected');
    broker.behaviour = { ...broker.behaviour, published: (_packet, client) => client.kick() };
    await assert.rejects(link.publish({ topic: 'x', payload: Buffer.from('x') }));
    await ended;
    broker.behaviour = {};
    clock.advance(minutes);
    connected = events.next('mqtt.connected', { protocol: 5 });
    if (!link.connected && clock.next !== undefined) clock.advance(clock.next);
    await connected;
  });

  test('a load balancer accepts and closes while the broker behind it restarts: MQTT 5 again after five minutes', async () => {
    await using broker = await startMosquitto();
    await using balancer = await CountingProxy.before(broker.url);
    const { link, clock, events } = linkTo(`mqtt://127.0.0.1:${balancer.port}`, { protocol: 'auto' });
    await using _ = link;
    await events.until('mqtt.connected', { protocol: 5 });
    await broker.stop();
    await events.until('mqtt.disconnected');
    while (events.count('mqtt.version-refused') === 0) await nextAttempt({ link, clock });
    await broker.restart();
    clock.advance(0);
    await events.until('mqtt.connected', { protocol: 4 });
    const ended = events.next('mqtt.disconnected');
    const connected = events.next('mqtt.connected', { protocol: 5 });
    clock.advance(5 * minutes);
    await ended;
    clock.advance(clock.next!);
    await connected;
    clock.advance(24 * 60 * minutes);
    assert.equal(link.connected, true);
    assert.equal(events.count('mqtt.disconnected'), 2);
  });

  test('aedes knows 3.1.1 alone, and no failure is reported for that', async () => {
    await using broker = await startAedes();
    const { link, clock, events } = linkTo(broker.url, { protocol: 'auto' });
    await using _ = link;
    await events.until('mqtt.version-refused');
    clock.advance(0);
    await events.until('mqtt.connected', { protocol: 4 });
    assert.equal(events.count('mqtt.connect-failed'), 0);
  });
});

describe('TLS files', limit, () => {
  test('files that cannot be read, or used, are said once, tried again, and read anew', async (t) => {
    const folder = mkdtempSync(join(tmpdir(), 'postern-tls-'));
    t.after(() => rmSync(folder, { recursive: true }));
    const file = (name: string) => join(folder, name);
    selfSigned(
      'localhost',
      { key: file('key'), cert: file('cert') },
      '-addext',
      'subjectAltName=IP:127.0.0.1',
    );
    for (const name of ['key', 'cert']) chmodSync(file(name), 0o644);
    chmodSync(folder, 0o755);
    await using broker = await startMosquitto([
      'allow_anonymous true',
      `certfile ${file('cert')}`,
      `keyfile ${file('key')}`,
    ]);
    const { link, clock, events } = linkTo(broker.url.replace('mqtt:', 'mqtts:'), {
      protocol: 5,
      ca: file('cert'),
      key: file('mine.key'),
      cert: file('mine'),
    });
    await using _ = link;
    const attempt = () => nextAttempt({ link, clock });
    const first = await events.until('mqtt.connect-failed');
    assert.equal(first.fields.reason, `mqtt.cert: ${file('mine')} cannot be read (ENOENT)`);
    await attempt();
    await attempt();
    assert.equal(events.count('mqtt.connect-failed'), 1);
    selfSigned('gw-1', { key: file('mine.key'), cert: file('mine') });
    writeFileSync(file('half'), '-----BEGIN CERTIFICATE-----\nMIIB');
    renameSync(file('mine'), file('whole'));
    renameSync(file('half'), file('mine'));
    await attempt();
    assert.equal(events.count('mqtt.connect-failed'), 2, 'half a certificate is another failure');
    renameSync(file('whole'), file('mine'));
    await attempt();
    assert.equal(link.connected, true);
    assert.deepEqual(link.problems, []);
  });

  test('a URL that cannot be parsed is a failure to connect, and nothing more', async () => {
    const { link, events } = linkTo('mqtt://[::1');
    await using _ = link;
    await events.until('mqtt.connect-failed');
    assert.ok(link.retryInSeconds !== undefined);
  });
});
