import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, describe, test } from 'node:test';
import { checkConfig } from '../../src/base/config.ts';
import { deviceConfigSchema } from '../../src/device/config.ts';
import { Device } from '../../src/device/device.ts';
import { accountNodes } from '../../src/mo/dm-acc.ts';
import { protectBootstrap } from '../../src/wire/syncml/bootstrap-security.ts';
import { encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { encodeTnds, TndsMediaType } from '../../src/wire/syncml/tnds.ts';
import { EventRecorder } from '../event-recorder.ts';
import { Site, secrets } from '../journeys/site.ts';
import { startAedes } from '../peers/brokers.ts';

const id = 'urn:dev:ops:1';
const limit = { timeout: 60_000 };
const folder = mkdtempSync(join(tmpdir(), 'postern-bootstrap-'));
after(() => rmSync(folder, { recursive: true }));
let files = 0;

/** Writes a document to a file. Returns the table `bootstrap` for it, whose content type has the protection. */
function bootstrapFile(
  document: Uint8Array | string,
  mediaType: string,
  protectedBy = { network: secrets.factory(id) },
) {
  const file = join(folder, `${++files}`);
  const octets = Buffer.from(document as string);
  writeFileSync(file, octets);
  return { file, type: `${mediaType}; ${protectBootstrap(octets, protectedBy)}` };
}

const account = {
  serverId: 'dm.example',
  address: 'https://dm.example/dm',
  own: { name: id, secret: secrets.deviceClient(id), nonce: Buffer.from('n1') },
  peer: { name: 'dm.example', secret: secrets.deviceServer(id), nonce: Buffer.from('n2') },
};

const dmProfile = (deviceId: string, type: string = TndsMediaType.Xml) =>
  encodeMessage(
    {
      header: {
        verDtd: '1.2',
        verProto: 'DM/1.2',
        sessionId: '0',
        msgId: 0,
        target: { locUri: deviceId },
        source: { locUri: 'dm.example' },
      },
      commands: [
        {
          name: 'Add',
          cmdId: '1',
          items: [
            {
              target: { locUri: './Inbox' },
              meta: { format: 'xml', type },
              data: encodeTnds({ path: './Inbox', root: accountNodes('x', account) }),
            },
          ],
        },
      ],
      final: true,
    },
    MediaType.Wbxml,
  );

const provisioning = `<wap-provisioningdoc version="1.1"><characteristic type="APPLICATION"><parm name="APPID" value="w7"/><parm name="PROVIDER-ID" value="dm.example"/><parm name="ADDR" value="https://dm.example/dm"/><characteristic type="APPAUTH"><parm name="AAUTHLEVEL" value="APPSRV"/><parm name="AAUTHTYPE" value="DIGEST"/><parm name="AAUTHNAME" value="${id}"/><parm name="AAUTHSECRET" value="${secrets.deviceClient(id)}"/></characteristic><characteristic type="APPAUTH"><parm name="AAUTHLEVEL" value="CLIENT"/><parm name="AAUTHTYPE" value="DIGEST"/><parm name="AAUTHSECRET" value="${secrets.deviceServer(id)}"/></characteristic></characteristic></wap-provisioningdoc>`;

function startDevice(bootstrap: object, more: object = {}) {
  const events = new EventRecorder();
  const config = checkConfig(
    deviceConfigSchema,
    {
      device: { id, 'factory-secret': secrets.factory(id), ...more },
      network: { gateway: 'coap://127.0.0.1:9', interface: '127.0.0.1' },
      bootstrap,
    },
    'test',
  );
  return { device: new Device(config, { events }), events };
}

test(
  'a device whose DM server does not bootstrap it asks the gateway itself, with its factory secret',
  limit,
  async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    await site.headend([id], { policy: { 'assisted-bootstrap': false } });
    const gateway = await site.gateway([id]);
    const device = site.device(id, gateway, { factory: true, server: true });
    await device.start();
    await device.attached;
    assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-1']);
    assert.equal(site.headendEvents.count('bootstrap.assisted'), 0);
  },
);

describe('a bootstrap document in a file', limit, () => {
  // conforms: BOO-1, BOO-5
  for (const [what, document, mediaType] of [
    ['DM profile in WBXML', dmProfile(id), MediaType.Wbxml],
    ['Client Provisioning in XML', provisioning, 'text/vnd.wap.connectivity-xml'],
  ] as const)
    test(`${what}: the device reaches its DM server, which bootstraps it to a gateway`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      await site.headend([id]);
      const gateway = await site.gateway([]);
      const device = site.device(id, gateway, {
        factory: true,
        top: { bootstrap: bootstrapFile(document, mediaType) },
      });
      await device.start();
      await device.attached;
      assert.deepEqual(device.servers.toSorted(), ['dm.example', 'gw-1']);
      await site.headendEvents.until('bootstrap.assisted', { device: id, status: 200 });
    });

  test('protected by a PIN and the factory secret', async () => {
    const both = { network: secrets.factory(id), pin: '4711' };
    const bootstrap = bootstrapFile(dmProfile(id), MediaType.Wbxml, both);
    const { device } = startDevice(bootstrap, { pin: '4711' });
    await using _ = device;
    await device.start();
    assert.deepEqual(device.servers, ['dm.example']);
  });

  const good = () => bootstrapFile(dmProfile(id), MediaType.Wbxml);
  const refused: [string, () => object, RegExp][] = [
    [
      'that was changed',
      () => ({ ...good(), file: bootstrapFile(`${provisioning} `, 'x').file }),
      /no valid MAC/,
    ],
    [
      'with a MAC under another secret',
      () => bootstrapFile(dmProfile(id), MediaType.Wbxml, { network: 'guess' }),
      /no valid MAC/,
    ],
    ['without protection', () => ({ ...good(), type: MediaType.Wbxml }), /no valid MAC/],
    [
      'for another device',
      () => bootstrapFile(dmProfile('urn:dev:other'), MediaType.Wbxml),
      /is for another device, urn:dev:other/,
    ],
    ['of another media type', () => bootstrapFile('x', 'text/plain'), /of type text\/plain/],
    [
      'with an object of a type that the Inbox does not take',
      () => bootstrapFile(dmProfile(id, 'text/plain'), MediaType.Wbxml),
      /not applied: 415/,
    ],
    ['that does not exist', () => ({ ...good(), file: join(folder, 'none') }), /cannot be read/],
  ];
  // conforms: BOO-4, OBJ-4
  for (const [what, bootstrap, why] of refused)
    test(`a document ${what} is refused and adds no account`, async () => {
      const { device } = startDevice(bootstrap());
      await using _ = device;
      await assert.rejects(device.start(), (error: Error) => why.test(error.message));
      assert.deepEqual(device.servers, []);
    });

  // conforms: BOO-4
  test('the same document is not applied again after a restart', async () => {
    const state = join(folder, 'device.db');
    const bootstrap = good();
    for (const times of [1, 0]) {
      const { device, events } = startDevice(bootstrap, { state });
      await using _ = device;
      await device.start();
      assert.deepEqual(device.servers, ['dm.example']);
      assert.equal(events.count('device.bootstrapped'), times);
    }
  });
});

describe('the local bootstrap server', limit, () => {
  // conforms: BOO-2
  for (const encoding of ['xml', 'wbxml', 'cbor'])
    test(`a device that speaks ${encoding} attaches`, async () => {
      await using broker = await startAedes();
      await using site = new Site(broker.url);
      const gateway = await site.gateway([id]);
      const device = site.device(id, gateway, { factory: true, more: { encoding } });
      await device.start();
      await device.attached;
    });

  // conforms: BOO-3
  test('protects a bootstrap by secret and PIN; a device without the PIN refuses it', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const bootstrap = { device: [{ id, 'factory-secret': secrets.factory(id), pin: '4711' }] };
    const gateway = await site.gateway([], { bootstrap });
    const withoutPin = site.device(id, gateway, { factory: true });
    await withoutPin.start();
    const failed = await site.deviceEvents.until('device.attach-failed');
    assert.match(String(failed.fields.reason), /no valid MAC/);
    const withPin = site.device(id, gateway, { factory: true, more: { pin: '4711' } });
    await withPin.start();
    await withPin.attached;
  });
});
