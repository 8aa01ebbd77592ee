import { connect as connectTcp } from 'node:net';
import { setTimeout as pause } from 'node:timers/promises';
import { connect as connectMqtt, type MqttClient } from 'mqtt';
import type { Entropy } from '../../src/base/entropy.ts';
import { EnvelopeKind, encodeEnvelope } from '../../src/wire/tunnel/envelope.ts';
import { deviceId } from '../bench/crowd.ts';
import { type Attack, acted, bignum, firstMessage, guess, int, repeatedly, type Target } from './attacker.ts';
import type { GateMode } from './gate.ts';

/** A client of the broker, which the broker lets do everything. */
async function connected(broker: string, clientId: string): Promise<MqttClient> {
  const client = connectMqtt(broker, { clientId, protocolVersion: 5 });
  client.on('error', () => {});
  await new Promise<void>((resolve) => void client.once('connect', () => resolve()));
  return client;
}

/** Makes the broker hostile in these ways, one after the other. It is a good broker again when this process ends. */
async function hostile({ gate }: Target, modes: readonly GateMode[], milliseconds: number): Promise<never> {
  const socket = connectTcp(gate, '127.0.0.1');
  for (let round = 0; ; round++) {
    socket.write(`${modes[round % modes.length]}\n`);
    acted();
    await pause(milliseconds);
  }
}

/** Where the addresses come from that an attacker names in its envelopes. */
const peerOf = (chance: Entropy): string => `192.0.2.${10 + int(chance, 200)}`;

/** Attacks over the broker, and by the broker itself. */
export const brokerAttacks: Readonly<Record<string, Attack>> = {
  'hostile-envelopes': {
    what: 'Malformed, replayed and forged envelopes to the gateway and to the head-end over the broker, 200 a second',
    from: 'inside',
    run: async ({ broker, devices }, chance) => {
      const client = await connected(broker, 'liar');
      const heard: Buffer[] = [];
      client.on('message', (_, payload) => {
        heard.push(payload);
        if (heard.length > 200) heard.shift();
      });
      await client.subscribeAsync('dm/+/down');
      await client.subscribeAsync('dm/+/up/#');
      await repeatedly(200, (round) => {
        const original = heard[int(chance, heard.length)];
        const payload = Buffer.from(
          original && round % 4 !== 0 ? original : chance.bytes(1 + int(chance, 400)),
        );
        if (round % 4 > 1) payload[int(chance, payload.length)] = int(chance, 256);
        if (round % 40 === 0 && payload.length > 8) payload.set(bignum(payload.length - 8));
        const topic = round % 2 === 0 ? 'dm/gw-1/down' : `dm/gw-${1 + int(chance, 3)}/up`;
        client.publish(topic, payload, { qos: 0 });
        if (round % 100 === 0)
          client.publish('dm/gw-2/state', Buffer.from(chance.bytes(int(chance, devices))), { qos: 0 });
      });
    },
  },
  'tunnel-ends': {
    what: 'Packages to the head-end in the names of gateways and honest devices: first messages, guesses, 1,000 Gets, bignums, 300 a second',
    from: 'inside',
    run: async ({ broker, devices }, chance) => {
      const client = await connected(broker, 'forger');
      const gets = Array.from(
        { length: 1000 },
        (_, at) =>
          `<Get><CmdID>${at + 1}</CmdID><Item><Target><LocURI>./DevInfo</LocURI></Target></Item></Get>`,
      ).join('');
      const server = 'dm.example';
      await repeatedly(300, (round) => {
        const gateway = `gw-${1 + int(chance, 3)}`;
        const isDevice = round % 4 !== 0;
        const device = isDevice ? deviceId(int(chance, devices)) : gateway;
        const session = String(int(chance, 1e6));
        const bodies = [
          () => firstMessage(device, session, 1, { server }),
          () => firstMessage(device, session, 1, { server, credential: guess(chance) }),
          () => firstMessage(device, (1 + (round % 64)).toString(16), 900, { server }),
          () =>
            round % 50 === 3 ? firstMessage(device, session, 1, { server, body: gets }) : bignum(60_000),
        ];
        const isCbor = round % 4 === 3 && round % 50 !== 3;
        const envelope = encodeEnvelope({
          kind: EnvelopeKind.Request,
          correlation: chance.bytes(16),
          ...(isDevice && { device, peer: peerOf(chance) }),
          server,
          contentType: isCbor ? 'application/vnd.postern.dm+cbor' : 'application/vnd.syncml.dm+xml',
          body: bodies[round % 4]!(),
        });
        client.publish(`dm/${gateway}/up`, envelope, { qos: 0 });
      });
    },
  },
  'gateway-flood': {
    what: 'A gateway sends 2,000 messages a second to the head-end: first messages of itself and of devices that there are not, states, garbage',
    from: 'inside',
    run: async ({ broker }, chance) => {
      const client = await connected(broker, 'gw-2');
      const server = 'dm.example';
      await repeatedly(2000, (round) => {
        const isDevice = round % 4 > 1;
        const device = isDevice ? `urn:dev:ops:none-${int(chance, 1e6)}` : 'gw-2';
        const session = int(chance, 0xffff).toString(16);
        const package1 = encodeEnvelope({
          kind: EnvelopeKind.Request,
          correlation: chance.bytes(16),
          ...(isDevice && { device, peer: peerOf(chance) }),
          server,
          contentType: 'application/vnd.syncml.dm+xml',
          body: firstMessage(device, session, 1, { server, credential: guess(chance) }),
        });
        const isGarbage = round % 10 === 9;
        const what = isGarbage && round % 20 === 9 ? 'state' : 'up';
        client.publish(`dm/gw-2/${what}`, isGarbage ? Buffer.from(chance.bytes(300)) : package1, { qos: 0 });
      });
    },
  },
  'broker-kicks': {
    what: 'The broker ends each connection after CONNACK, then after SUBACK',
    from: 'inside',
    cutsOff: true,
    run: (target) => hostile(target, ['kick-after-connack', 'kick-after-suback'], 1500),
  },
  'broker-silence': {
    what: 'The broker keeps connections open, takes new ones, and answers nothing',
    from: 'inside',
    cutsOff: true,
    run: (target) => hostile(target, ['silent'], 60_000),
  },
  'broker-lies': {
    what: 'The broker delivers old envelopes again, broken ones, and packets that are not MQTT',
    from: 'inside',
    cutsOff: true,
    run: (target) => hostile(target, ['replay', 'malformed', 'garbage'], 1000),
  },
};
