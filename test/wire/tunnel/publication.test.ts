import assert from 'node:assert/strict';
import { test } from 'node:test';
import fc from 'fast-check';
import { generate, type IPublishPacket, type Packet, parser } from 'mqtt-packet';
import { type Publication, packetBytes, packetOf } from '../../../src/wire/tunnel/publication.ts';

const publication: fc.Arbitrary<Publication> = fc.record(
  {
    topic: fc.string({ minLength: 1, maxLength: 200, unit: 'binary' }),
    payload: fc.oneof(
      fc.uint8Array({ maxLength: 300 }).map((octets) => Buffer.from(octets)),
      fc.integer({ min: 0, max: 70_000 }).map((length) => Buffer.alloc(length, 'x')),
    ),
    retain: fc.boolean(),
    expiry: fc.nat(2 ** 31),
    responseTopic: fc.string({ minLength: 1, maxLength: 200 }),
  },
  { requiredKeys: ['topic', 'payload'] },
);

function read(octets: Buffer, protocolVersion: 4 | 5): Packet[] {
  const packets: Packet[] = [];
  const reading = parser({ protocolVersion });
  reading.on('packet', (packet: Packet) => packets.push(packet));
  reading.on('error', (error: Error) => assert.fail(error));
  assert.equal(reading.parse(octets), 0, 'nothing is left');
  return packets;
}

for (const version of [4, 5] as const)
  test(`a PUBLISH of MQTT ${version} is read by mqtt-packet as it was meant, and its size is known before`, () => {
    fc.assert(
      fc.property(publication, (one) => {
        const { topic, payload, retain = false, expiry, responseTopic } = one;
        const [packet, ...more] = read(packetOf(one, version), version) as IPublishPacket[];
        assert.ok(packet && more.length === 0);
        assert.deepEqual(
          [packet.cmd, packet.qos, packet.retain, packet.topic.toString(), Buffer.from(packet.payload)],
          ['publish', 0, retain, topic, payload],
        );
        const properties = {
          ...(expiry !== undefined && { messageExpiryInterval: expiry }),
          ...(responseTopic !== undefined && { responseTopic }),
        };
        if (version === 5) assert.deepEqual({ ...packet.properties }, properties);
        const acknowledged = generate(
          { cmd: 'publish', topic, payload, qos: 1, dup: false, retain, messageId: 7, properties },
          { protocolVersion: version },
        );
        assert.equal(packetBytes(one, version), acknowledged.length);
      }),
    );
  });
