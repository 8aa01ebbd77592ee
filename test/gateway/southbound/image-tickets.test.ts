import assert from 'node:assert/strict';
import { test } from 'node:test';
import { seededEntropy } from '../../../src/base/entropy.ts';
import { hashedName } from '../../../src/base/hashed-name.ts';
import { Sealing } from '../../../src/base/sealing.ts';
import type { ServedImage } from '../../../src/gateway/southbound/image-resource.ts';
import { ImageTickets } from '../../../src/gateway/southbound/image-tickets.ts';
import type { DeviceRecord } from '../../../src/mo/device-record.ts';
import { Code } from '../../../src/wire/coap/codes.ts';
import { CoapRequest } from '../../../src/wire/coap/message.ts';
import { Option, text } from '../../../src/wire/coap/options.ts';
import { HandClock } from '../../hand-clock.ts';
import { account, messageOf } from '../../wire/coap/wire.ts';

const day = 86_400_000;
const hash = 'ab'.repeat(32);

/** A GET of this path and query. */
function get(uri: string): CoapRequest {
  const [path = '', query = ''] = uri.split('?');
  const options = [
    ...path
      .slice(1)
      .split('/')
      .map((segment) => text(Option.UriPath, decodeURIComponent(segment))),
    ...query.split('&').map((part) => text(Option.UriQuery, part)),
  ];
  const remote = { address: '192.0.2.1', port: 1, key: '1' };
  return new CoapRequest(remote, messageOf({ code: Code.GET, options }), false, new Uint8Array(), account());
}

function rig(start = 7, key = new Uint8Array(32)) {
  const clock = new HandClock();
  const attached = new Set(['a', 'b']);
  const named = (name: string) => {
    const deviceId = [...attached].find((id) => hashedName(id) === name);
    return deviceId === undefined ? undefined : ({ deviceId } as DeviceRecord);
  };
  const sealing = new Sealing(key, seededEntropy(start));
  const images = new Map<string, ServedImage>();
  const ready = (name: string) => images.get(name);
  const tickets = new ImageTickets({ sealing, start, devices: { named }, ready, clock });
  return { clock, attached, images, tickets };
}

test('a ticket is for one device and one version of one image, and cannot be made up', () => {
  const { tickets, attached } = rig();
  const path = tickets.pathFor('a', 'fw 1', hash);
  assert.match(path, /^\/img\/fw%201\?v=abababababababab&t=[\w-]{60,72}$/);
  assert.equal(tickets.deviceOf(get(path)), 'a');
  assert.notEqual(tickets.pathFor('a', 'fw 1', hash), path);
  const ticket = path.slice(path.indexOf('&t=') + 3);
  for (const other of [
    `/img/fw%202?v=${hash.slice(0, 16)}&t=${ticket}`,
    `/img/fw%201?v=${'cd'.repeat(8)}&t=${ticket}`,
    `/img/fw%201?t=${ticket}`,
    `/img/fw%201?v=${hash.slice(0, 16)}`,
    path.slice(0, -1),
    path.replace('&t=', '&t=A'),
    `${path.slice(0, path.indexOf('&t='))}&t=`,
  ])
    assert.equal(tickets.deviceOf(get(other)), undefined, other);
  // Each bit of it counts.
  const octets = Buffer.from(ticket, 'base64url');
  for (let at = 0; at < octets.length; at++) {
    const changed = Buffer.from(octets);
    changed[at]! ^= 1;
    assert.equal(tickets.deviceOf(get(path.replace(ticket, changed.toString('base64url')))), undefined);
  }
  attached.delete('a');
  assert.equal(tickets.deviceOf(get(path)), undefined, 'its device is not attached any more');
});

test('a ticket is valid for a day, whatever the wall clock says, and outlasts one restart', () => {
  const { tickets, clock } = rig();
  const path = tickets.pathFor('a', 'fw', hash);
  clock.advance(day);
  const later = tickets.pathFor('b', 'fw', hash);
  assert.equal(tickets.deviceOf(get(path)), 'a');
  clock.advance(1000);
  assert.equal(tickets.deviceOf(get(path)), undefined);
  assert.equal(tickets.deviceOf(get(later)), 'b');
  const next = rig(8);
  assert.equal(next.tickets.deviceOf(get(later)), 'b');
  next.clock.advance(day + 1000);
  assert.equal(next.tickets.deviceOf(get(later)), undefined);
  for (const start of [6, 9]) assert.equal(rig(start).tickets.deviceOf(get(later)), undefined, `${start}`);
  const otherKey = rig(8, new Uint8Array(32).fill(1));
  assert.equal(otherKey.tickets.deviceOf(get(later)), undefined);
});

test('the image of a ticket is that of its holder, and of its version alone', () => {
  const { tickets, images, attached } = rig();
  const uri = tickets.pathFor('a', 'fw 1', hash);
  assert.equal(tickets.imageOf(uri), undefined);
  const image = { size: 1, hash, read: () => new Uint8Array(1) };
  images.set('fw 1', image);
  assert.equal(tickets.imageOf(uri), image);
  assert.equal(tickets.imageOf(uri, 'a'), image);
  assert.equal(tickets.imageOf(uri, 'b'), undefined);
  assert.equal(tickets.imageOf(uri.replace('fw%201', '%zz')), undefined);
  // It is another version now.
  images.set('fw 1', { ...image, hash: 'cd'.repeat(32) });
  assert.equal(tickets.imageOf(uri), undefined);
  images.set('fw 1', image);
  attached.delete('a');
  assert.equal(tickets.imageOf(uri), undefined);
});

test('the ticket of an image is that of its index too', async () => {
  const { tickets, images } = rig();
  const uri = tickets.pathFor('a', 'fw 1', hash);
  const path = uri.replace('fw%201', 'fw%201.blocks');
  assert.equal(tickets.deviceOf(get(path)), 'a');
  for (const other of [path.replace('.blocks', '.block'), path.replace('.blocks', '.blocks.blocks')])
    assert.equal(tickets.deviceOf(get(other)), undefined, other);
  const index = { size: 2, hash, read: () => new Uint8Array(2) };
  const image = { size: 1, hash, read: () => new Uint8Array(1), index: async () => index };
  assert.equal(await tickets.served(path), undefined);
  images.set('fw 1', image);
  assert.equal(await tickets.served(uri), image);
  assert.equal(await tickets.served(path), index);
  assert.equal(await tickets.served(path.replace('?v=ab', '?v=cd')), undefined);
  assert.equal(tickets.imageOf(path), undefined);
});
