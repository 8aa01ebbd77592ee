import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { DatabaseSync } from 'node:sqlite';
import { type TestContext, test } from 'node:test';
import { Code } from '../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../src/wire/coap/content-formats.ts';
import { type Reply, reply } from '../../src/wire/coap/message.ts';
import { encodeContent } from '../../src/wire/lwm2m/content.ts';
import { EnablerPeer } from '../conformance/enabler-client.ts';
import { LeapClock } from '../leap-clock.ts';
import { startAedes } from '../peers/brokers.ts';
import { turn } from '../wire/coap/wire.ts';
import { Site } from './site.ts';

const limit = { timeout: 60_000 };
const id = 'urn:dev:lwm2m:1';
const url = 'coap://192.0.2.9/fw';
const uri = 'PUT /5/0/1';
const execute = 'POST /5/0/2';
const poll = 'GET /5/0';

const item = (node: string, data?: string) =>
  `<Item><Target><LocURI>./FwUpdate/DownloadAndUpdate${node}</LocURI></Target>${data === undefined ? '' : `<Data>${data}</Data>`}</Item>`;
const command = `<Replace><CmdID>1</CmdID>${item('/PkgURL', url)}</Replace><Exec><CmdID>2</CmdID>${item('')}</Exec>`;

/** A DM server, a gateway that can be started again, and a client whose update does what the test says. */
async function updating(t: TestContext) {
  const stack = new AsyncDisposableStack();
  t.after(async () => await stack.disposeAsync());
  const folder = mkdtempSync(join(tmpdir(), 'postern-update-'));
  stack.defer(() => rmSync(folder, { recursive: true }));
  const state = join(folder, 'state.db');
  const broker = stack.use(await startAedes());
  const site = stack.use(new Site(broker.url));
  const headend = await site.headend([]);
  let port = 0;
  const start = async () => {
    // Polls are up to 30 s apart.
    const clock = new LeapClock(50);
    const gateway = await site.gateway(
      [],
      {
        gateway: { id: 'gw-1', state },
        coap: { port, leisure: 50, 'insecure-plain-coap': true },
        lwm2m: { device: [{ id }], 'insecure-no-security': true },
      },
      true,
      { clock },
    );
    port = gateway.coapPort;
    return gateway;
  };
  let gateway = await start();
  const peer = stack.use(await EnablerPeer.open(id, port));
  const { client } = peer;
  peer.links = '</1/0>,</3/0>,</5/0>';
  const firmware = { state: 0, result: 0 };
  /** Called for each request about the firmware. */
  let asked = (_what: string): Reply | Promise<never> | undefined => undefined;
  client.instead = (_request, what) => {
    const answer = asked(what);
    if (answer) return answer;
    if (what === uri || what === execute) return reply(Code.Changed);
    if (what !== poll) return undefined;
    const contentFormat = ContentFormat.LwM2mTlv;
    const entries = [
      { path: [5, 0, 3], value: firmware.state },
      { path: [5, 0, 5], value: firmware.result },
    ];
    return reply(Code.Content, { payload: encodeContent(contentFormat, entries, [5, 0]), contentFormat });
  };
  assert.equal(await peer.register('lt=86400'), '2.01');
  await site.headendEvents.until('alert.device-attach', { device: id });
  return {
    site,
    client,
    firmware,
    peer,
    state,
    /** Orders the update, and resolves when this has been asked. The device has accepted the order by then. */
    order: async (reached: string, answers: typeof asked, name = 'update') => {
      asked = answers;
      const { correlator } = await headend.fanOut('gw-1', {
        name,
        command,
        targets: { devices: [id] },
        returnFormat: 0,
      });
      await client.until(reached);
      return correlator;
    },
    get gateway() {
      return gateway;
    },
    stop: async () => await gateway[Symbol.asyncDispose](),
    start: async (answers: typeof asked) => {
      asked = answers;
      gateway = await start();
    },
    ended: async (correlator: string) => {
      await site.headendEvents.until('alert.command-fanout', { correlator });
      return headend.fanouts().find(({ name }) => name === 'update')?.result ?? '';
    },
    /** The requests that change something. */
    changes: () => client.orders.filter((what) => what === uri || what === execute),
  };
}

/** Never answers: the request was lost, or the client is busy. */
const lost = () => new Promise<never>(() => {});
const done = /Done="1".*Status="200"/;

test(
  'a gateway that stops before the client has a package gives it that after the restart',
  limit,
  async (t) => {
    const rig = await updating(t);
    const correlator = await rig.order(poll, (what) => (what === poll ? lost() : undefined));
    await rig.stop();
    assert.deepEqual(rig.changes(), []);
    await rig.start((what) => {
      if (what === uri) rig.firmware.state = 2;
      if (what === execute) Object.assign(rig.firmware, { state: 0, result: 1 });
      return undefined;
    });
    assert.match(await rig.ended(correlator), done);
    assert.deepEqual(rig.changes(), [uri, execute]);
  },
);

test(
  'a client that downloads while the gateway is off is told to install by the next start',
  limit,
  async (t) => {
    const rig = await updating(t);
    const correlator = await rig.order(uri, (what) => {
      if (what === uri) rig.firmware.state = 1;
      return undefined;
    });
    // The next poll shows that the answer has arrived.
    rig.client.heard.splice(0, rig.client.heard.length - 1);
    await rig.client.until(poll);
    await rig.stop();
    let polls = 0;
    await rig.start((what) => {
      if (what === poll && ++polls === 2) rig.firmware.state = 2;
      if (what === execute) Object.assign(rig.firmware, { state: 0, result: 1 });
      return undefined;
    });
    assert.match(await rig.ended(correlator), done);
    assert.deepEqual(rig.changes(), [uri, execute]);
  },
);

test('an Execute that got lost with the gateway is sent again', limit, async (t) => {
  const rig = await updating(t);
  const correlator = await rig.order(execute, (what) => {
    if (what === uri) rig.firmware.state = 2;
    return what === execute ? lost() : undefined;
  });
  await rig.stop();
  rig.client.heard.length = 0;
  await rig.start((what) => {
    if (what === execute) Object.assign(rig.firmware, { state: 0, result: 1 });
    return undefined;
  });
  assert.match(await rig.ended(correlator), done);
  assert.deepEqual(rig.changes(), [execute]);
});

test('a client that installs is waited for, and is not told to install again', limit, async (t) => {
  const rig = await updating(t);
  const correlator = await rig.order(execute, (what) => {
    if (what === uri) rig.firmware.state = 2;
    if (what === execute) rig.firmware.state = 3;
    return undefined;
  });
  await rig.stop();
  let polls = 0;
  await rig.start((what) => {
    if (what === poll && ++polls === 3) Object.assign(rig.firmware, { state: 0, result: 1 });
    return undefined;
  });
  assert.match(await rig.ended(correlator), done);
  assert.deepEqual(rig.changes(), [uri, execute]);
});

for (const [name, state, result, expected] of [
  ['has installed', 0, 1, done],
  ['could not install', 2, 8, /Failed="1".*Status="410"/],
] as const)
  test(
    `a client that ${name} and rebooted while the gateway was off registers anew: its result is told`,
    limit,
    async (t) => {
      const rig = await updating(t);
      const correlator = await rig.order(execute, (what) => {
        if (what === uri) rig.firmware.state = 2;
        if (what === execute) rig.firmware.state = 3;
        return undefined;
      });
      await rig.stop();
      Object.assign(rig.firmware, { state, result });
      let isUp = false;
      await rig.start((what) => (what === poll && !isUp ? lost() : undefined));
      assert.equal(await rig.peer.register('lt=86400'), '2.01');
      isUp = true;
      assert.match(await rig.ended(correlator), expected);
      assert.deepEqual(rig.changes(), [uri, execute]);
      assert.equal(rig.site.gatewayEvents.count('adaptation.update-resumed'), 1);
    },
  );

test(
  'the inventory has the firmware of a client that stays registered after its update; not that of one that failed',
  limit,
  async (t) => {
    const rig = await updating(t);
    const shown = () => rig.gateway.devices().map(({ firmware, state }) => [firmware, state]);
    assert.deepEqual(shown(), [['1.0', 'attached']]);
    for (const [result, version] of [
      [8, '1.0'],
      [1, '2.0'],
    ] as const) {
      rig.client.heard.length = 0;
      Object.assign(rig.firmware, { state: 0, result: 0 });
      const correlator = await rig.order(
        execute,
        (what) => {
          if (what === uri) rig.firmware.state = 2;
          if (what === execute) {
            Object.assign(rig.firmware, { state: 0, result });
            rig.client.values.set('/3/0/3', `${result + 1}.0`);
          }
          return undefined;
        },
        `to-${version}-${result}`,
      );
      await rig.ended(correlator);
      while (shown()[0]?.[0] !== version) await turn();
    }
    assert.equal(rig.site.gatewayEvents.count('device.attached'), 1);
  },
);

test(
  'an order of which the state holds nothing any more ends at the start, with the reason in the log',
  limit,
  async (t) => {
    const rig = await updating(t);
    const correlator = await rig.order(execute, (what) => {
      if (what === uri) rig.firmware.state = 2;
      if (what === execute) rig.firmware.state = 3;
      return undefined;
    });
    await rig.stop();
    using raw = new DatabaseSync(rig.state);
    raw.exec('DELETE FROM client_update');
    await rig.start(() => undefined);
    assert.match(await rig.ended(correlator), /Failed="1".*Status="410"/);
    await rig.site.gatewayEvents.until('adaptation.update-failed', {
      device: id,
      reason: 'the gateway has lost the order',
    });
  },
);
