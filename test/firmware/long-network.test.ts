import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { patience } from './board.ts';
import { Field } from './field.ts';
import { buildFor, skipImages, versions } from './images.ts';

const device = 'urn:dev:ops:1';
const isLong = process.env.POSTERN_FIRMWARE === 'long';

describe('the network of an emulated board, the long form', {
  skip: isLong ? skipImages : 'npm run image:test',
  timeout: 1_500_000,
}, () => {
  test('a table that is wrong for the place leads to DHCP, which is told upstream; VLAN, Wi-Fi and modem are in the image', {
    timeout: patience.update + 600_000,
  }, async (t) => {
    const image = await buildFor('network', versions.first, { withDisk: true, with: ['wifi', 'cellular'] });
    await using field = await Field.prepare({
      image,
      files: {},
      devices: [device],
      network: {
        'fall-back-after': 3,
        interface: [
          { name: 'eth0', addresses: ['192.0.2.10/24'], gateways: ['192.0.2.1'], dns: ['192.0.2.53'] },
          { name: 'eth0', vlan: 20, addresses: ['192.0.3.10/24'] },
          {
            name: 'wlan0',
            addresses: ['192.0.4.10/24'],
            wifi: { ssid: 'plant', password: 'password', country: 'DE' },
          },
        ],
      },
    });
    const { board } = field;
    const told = field.site.headendEvents.until('alert.gateway-fault', { kind: 'network' });
    await board.start();
    const fellBack = board.event('network.fell-back');
    assert.equal((await fellBack).uplink, 'dhcp');
    t.diagnostic(`the DM server is reached ${(board.machine.age / 1000).toFixed(0)} s after power-on`);
    await told;
    await field.attach(device);
    const serial = board.machine.serial.join('\n');
    assert.doesNotMatch(serial, /cannot be loaded|does not start|Operation not supported|^ip: /m);
    assert.match(serial, /network: dhcp/);
  });
});
