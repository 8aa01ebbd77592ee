import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { checkConfig } from '../../../src/base/config.ts';
import { gatewayConfigSchema } from '../../../src/gateway/config.ts';
import { readDeviceAttach } from '../../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { ContentFormat } from '../../../src/wire/coap/content-formats.ts';
import { deviceIdRule } from '../../../src/wire/resources.ts';
import { firstMessage } from '../../attack/attacker.ts';
import { gatewayConfig, Site } from '../../journeys/site.ts';
import { startAedes } from '../../peers/brokers.ts';
import { CoapPeer } from '../../peers/coap-peer.ts';

/** Names that would move the cursor, forge a line, turn a name around, or look like another one. */
const odd = ['a b', ' a', 'a\u001b[2J', 'a\nb', 'a\u0085b', 'a\u202eb', 'a\u0000', 'x'.repeat(256), ''];

describe('a device ID with spaces or control characters is refused wherever it comes in', {
  timeout: 60_000,
}, () => {
  test('in a session, a bootstrap, the tunnel and the bootstrap of LwM2M: 4.00 with a clear word, and nothing is kept', async () => {
    await using broker = await startAedes();
    await using site = new Site(broker.url);
    const gateway = await site.gateway([], {
      tunnel: { devices: ['*'] },
      lwm2m: { 'insecure-no-security': true, device: [{ id: 'client' }] },
    });
    for (const device of odd) {
      const escaped = device.replaceAll('\u0000', '\u0001').replaceAll('\u001b', '\u007f');
      const package1 = {
        contentFormat: ContentFormat.SyncmlXml,
        payload: firstMessage(escaped.replaceAll('\n', '&#10;'), '1', 1),
      };
      await using peer = await CoapPeer.open();
      const ask = async (path: string, more: object) =>
        await peer.call(gateway.coapPort, { method: Code.POST, path: path.split('/'), ...more });
      const query = [`id=${device}`];
      const answers = {
        '/dm/bs': device === '' || device.length > 250 ? undefined : await ask('dm/bs', { query }),
        '/dm/t':
          device === '' || device.length > 250
            ? undefined
            : await ask('dm/t/dm.example', { query, ...package1 }),
        '/bs':
          device === '' || device.length > 250 ? undefined : await ask('bs', { query: [`ep=${device}`] }),
        // XML has no space at the beginning of a text.
        '/dm': device.trim() === device && device !== '' ? await ask('dm', package1) : undefined,
      };
      for (const [path, answer] of Object.entries(answers)) {
        if (!answer) continue;
        assert.equal(answer.name, '4.00', `${path} ${JSON.stringify(device)}: ${answer.text}`);
        if (path !== '/dm') assert.ok(answer.text.includes(deviceIdRule.slice(0, 30)), answer.text);
      }
    }
    assert.deepEqual(gateway.devices(), []);
    assert.equal(gateway.status().sessions, 0);
  });

  test('in the configuration, and in what a child gateway reports', () => {
    const base = gatewayConfig('mqtt://127.0.0.1', [], {});
    for (const id of odd) {
      const bootstrap = { device: [{ id, 'factory-secret': 'long enough' }] };
      assert.throws(
        () => checkConfig(gatewayConfigSchema, { ...base, bootstrap }, 'f'),
        /bootstrap\.device\[0\]\.id: expected /,
        JSON.stringify(id),
      );
      // XML has no space at the beginning of a text.
      if (id.trim() !== id) continue;
      const text = [...id].map((one) => (one < ' ' ? `&#${one.charCodeAt(0)};` : one)).join('');
      const data = `<DeviceAttach Seq="1"><DeviceID>${text}</DeviceID><Mode>0</Mode><Bootstrap>local</Bootstrap></DeviceAttach>`;
      const alert = { name: 'Alert', cmdId: '1', data: 1226, items: [{ data }] } as const;
      assert.throws(
        () => readDeviceAttach(ownVocabulary, alert),
        { code: 'malformed', message: /not a Device Attach Alert|XML/ },
        JSON.stringify(id),
      );
    }
    const fine =
      '<DeviceAttach Seq="1"><DeviceID>a</DeviceID><Mode>0</Mode><Bootstrap>local</Bootstrap></DeviceAttach>';
    const alert = { name: 'Alert', cmdId: '1', data: 1226, items: [{ data: fine }] } as const;
    assert.equal(readDeviceAttach(ownVocabulary, alert).deviceId, 'a');
  });
});
