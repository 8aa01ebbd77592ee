import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { connectAsync } from 'mqtt';
import { systemEntropy } from '../../src/base/entropy.ts';
import { succeeded } from '../../src/dm/client-session.ts';
import { Headend } from '../../src/headend/headend.ts';
import { decodeEnvelope, EnvelopeKind, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { firstMessage } from '../attack/attacker.ts';
import { EventRecorder } from '../event-recorder.ts';
import { HandClock } from '../hand-clock.ts';
import { headendConfig, Site } from '../journeys/site.ts';
import { startMosquitto } from '../peers/brokers.ts';

const [proved, late] = ['urn:dev:site:proved', 'urn:dev:site:late'];

test('packages in invented names, published as those of gw-1: its proved device is served, after a restart of the DM server too; a device that was never here waits', {
  timeout: 60_000,
}, async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'postern-unproven-'));
  t.after(() => rmSync(folder, { recursive: true }));
  await using broker = await startMosquitto(['allow_anonymous true', 'set_tcp_nodelay true']);
  await using site = new Site(broker.url);
  const config = headendConfig(broker.url, [proved, late], {
    headend: { id: 'dm.example', state: join(folder, 'headend.db'), 'gateway-rate': 100 },
  });
  /** No budget comes back unless the clock is moved. */
  const clock = new HandClock();
  const start = async (): Promise<{ headend: Headend; events: EventRecorder }> => {
    const events = new EventRecorder();
    const headend = new Headend(config, { events, clock });
    headend.start();
    await events.until('mqtt.connected');
    return { headend, events };
  };
  const liar = await connectAsync(broker.url, { protocolVersion: 5 });
  t.after(() => liar.end(true));
  await liar.subscribeAsync('dm/gw-1/down', { qos: 0 });
  let round = 0;
  /** Sends packages until one is refused. Each has a name and a session of its own. */
  const flood = async (): Promise<void> => {
    const { promise, resolve } = Promise.withResolvers<void>();
    const hear = (_topic: string, payload: Buffer): void => {
      const { kind, status, device } = decodeEnvelope(payload);
      if (device?.startsWith('urn:dev:none:') && kind === EnvelopeKind.Error && status === 503) resolve();
    };
    liar.on('message', hear);
    // The whole rate takes 480 at once, and the part of parties that have not proved themselves 160.
    for (let at = 0; at < 170; at++) {
      const device = `urn:dev:none:${++round}`;
      const body = firstMessage(device, '1', 1, { server: 'dm.example' });
      const contentType = 'application/vnd.syncml.dm+xml';
      const correlation = systemEntropy.bytes(12);
      const peer = '127.0.0.1|40000';
      const package1 = { kind: EnvelopeKind.Request, server: 'dm.example', contentType } as const;
      liar.publish('dm/gw-1/up', encodeEnvelope({ ...package1, correlation, device, peer, body }), {
        qos: 0,
      });
    }
    await promise;
    liar.off('message', hear);
  };

  const before = await start();
  const gateway = await site.gateway([proved, late]);
  const device = site.device(proved, gateway, { factory: true, server: true });
  await device.start();
  await device.attached;
  await before.events.until('alert.device-attach', { device: proved });
  await flood();
  assert.ok(succeeded(await device.contactServer('dm.example')));

  await before.headend[Symbol.asyncDispose]();
  const after = await start();
  await flood();
  assert.ok(succeeded(await device.contactServer('dm.example')));

  const newcomer = site.device(late, gateway, { factory: true, server: true });
  await newcomer.start();
  const { fields } = await after.events.until('gateway.over-rate', { gateway: 'gw-1' });
  assert.equal(fields.limit, 'unproven');
  clock.advance(10_000);
  await newcomer.attached;
  await after.events.until('alert.device-attach', { device: late });
  assert.ok(succeeded(await newcomer.contactServer('dm.example')));
  await after.headend[Symbol.asyncDispose]();
});
