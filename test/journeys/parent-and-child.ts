import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TestContext } from 'node:test';
import { composeGateway } from '../../src/gateway/composition.ts';
import { Gateway } from '../../src/gateway/gateway.ts';
import { EventRecorder } from '../event-recorder.ts';
import type { LeapClock } from '../leap-clock.ts';
import { gatewayConfig, loopback, Site, secrets, type Toml } from './site.ts';

const noBroker = 'mqtt://127.0.0.1:1';
/** The device that a child may bootstrap. */
export const device = 'urn:dev:below:1';

/** A gateway with its parts, and a recorder of its own. */
export async function start(
  t: TestContext,
  ids: readonly string[],
  changes: Toml,
  clock?: LeapClock,
  broker = noBroker,
) {
  const events = new EventRecorder();
  const surroundings = { events, listInterfaces: loopback('IPv4'), ...(clock && { clock }) };
  const config = gatewayConfig(broker, ids, changes);
  const parts = composeGateway(config, surroundings);
  const gateway = new Gateway(config, surroundings, parts);
  t.after(async () => {
    await gateway[Symbol.asyncDispose]();
    clock?.stop();
  });
  await gateway.start();
  return { gateway, events, parts, keys: parts.state.credentials.keys };
}

/** A parent. Its children are `ids`. */
export const parentOf = (
  t: TestContext,
  ids: readonly string[],
  port = 0,
  state = ':memory:',
  clock?: LeapClock,
) => {
  const ports = { coap: { port, leisure: 50 }, coaps: { port: port && port + 1 } };
  return start(t, ids, { gateway: { id: 'gw-1', state }, ...ports }, clock);
};

/** A child whose parent is at this port. */
export const childOf = (t: TestContext, port: number, clock?: LeapClock, id = 'gw-2', state = ':memory:') =>
  start(
    t,
    [device],
    {
      gateway: { id, state },
      coap: { port: 0, leisure: 50 },
      mqtt: undefined,
      parent: { id: 'gw-1', uri: `coaps://127.0.0.1:${port}`, 'factory-secret': secrets.factory(id) },
    },
    clock,
  );

/** Puts a clock forward in small steps until something has happened. Returns for how many milliseconds. */
export async function stepsUntil(happened: Promise<unknown>, clock: LeapClock, step = 250): Promise<number> {
  let isOver = false;
  void happened.then(() => {
    isOver = true;
  });
  let taken = 0;
  for (; !isOver; taken += step) await clock.leap(step);
  return taken;
}

/** Lets the child send something to its parent: that a device has come. */
export async function attachBelow(t: TestContext, child: Gateway): Promise<void> {
  const site = new Site(noBroker);
  t.after(() => site[Symbol.asyncDispose]());
  const below = site.device(device, { coapPort: child.coapPort }, { factory: true });
  await below.start();
  await below.attached;
}

/** A state file in a folder of the test. */
export function stateIn(t: TestContext, name: string): string {
  const folder = mkdtempSync(join(tmpdir(), 'postern-parent-'));
  t.after(() => rmSync(folder, { recursive: true }));
  return join(folder, name);
}
