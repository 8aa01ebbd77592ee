import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { presentable } from '../../../src/base/presentable.ts';
import { deviceAttachAlert, readDeviceAttach } from '../../../src/mo/gateway-alerts.ts';
import { ownVocabulary } from '../../../src/mo/vocabulary.ts';
import { readRegistration } from '../../../src/wire/lwm2m/registration.ts';
import { decodeDocument, encodeMessage, MediaType } from '../../../src/wire/syncml/codec.ts';
import type { Command, SyncmlMessage } from '../../../src/wire/syncml/message.ts';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;
const heap = () => {
  collect();
  return process.memoryUsage().heapUsed;
};

const messages = 200;
const filler = 'A'.repeat(100_000);
const nameOf = (at: number) => `urn:dev:ops:00000-gateway-${at}`;

function messageOf(at: number, commands: readonly Command[]): SyncmlMessage {
  return {
    header: {
      ...{ verDtd: '1.2', verProto: 'DM/1.2', sessionId: '1', msgId: 1 },
      ...{ target: { locUri: 'gw' }, source: { locUri: nameOf(at) } },
    },
    commands: [...commands, { name: 'Alert', cmdId: '9', data: 1226, items: [{ data: `${filler}${at}` }] }],
    final: true,
  };
}

function dataOf({ commands: [command] }: SyncmlMessage): string {
  assert.equal(command?.name, 'Alert');
  return String(command.items[0]?.data);
}

/** Keeps what `keep` takes of each message of 100 KB. Returns how many bytes that holds. */
function held(keep: (at: number) => unknown): number {
  keep(0);
  const kept: unknown[] = [];
  const before = heap();
  for (let at = 1; at <= messages; at++) kept.push(keep(at));
  const bytes = heap() - before;
  assert.equal(kept.length, messages);
  return bytes;
}

/** A tenth of the messages. */
const most = 10_000 * messages;

describe('what is kept of a large message does not hold the message', () => {
  for (const type of [MediaType.Xml, MediaType.Wbxml, MediaType.Cbor]) {
    const decoded = (at: number, commands: readonly Command[] = []) =>
      decodeDocument(encodeMessage(messageOf(at, commands), type), type);
    test(`${type}: the name of its sender`, () => {
      assert.ok(held((at) => decoded(at).header.source.locUri) < most);
    });
    test(`${type}: what a device says of itself, cut to its bound`, () => {
      assert.ok(held((at) => presentable(dataOf(decoded(at)))) < most);
    });
    test(`${type}: a device that a child gateway reports`, () => {
      const reported = (at: number) => {
        const body = deviceAttachAlert(ownVocabulary, {
          ...{ sequence: at, deviceId: nameOf(at), mode: 0, bootstrap: 'local' },
        });
        const alert: Command = { name: 'Alert', cmdId: '1', data: 1226, ...body };
        const [first] = decoded(at, [alert]).commands;
        assert.equal(first?.name, 'Alert');
        return readDeviceAttach(ownVocabulary, first);
      };
      assert.ok(held(reported) < most);
    });
  }
  test('the root of the objects of an LwM2M client, and a name between many spaces', () => {
    const links = (at: number) => `</a-root-of-objects/${at}>;rt="oma.lwm2m",${' '.repeat(15_000)}</1/0>`;
    const register = (at: number) =>
      readRegistration(['ep=x', 'lwm2m=1.1'], Buffer.from(links(at))).objects.root;
    assert.ok(held(register) < most);
    const spaced = (at: number) => {
      const message = messageOf(at, []);
      const padded = { locUri: `${' '.repeat(100_000)}${nameOf(at)}` };
      const coded = encodeMessage(
        { ...message, header: { ...message.header, source: padded } },
        MediaType.Xml,
      );
      return decodeDocument(coded, MediaType.Xml).header.source.locUri;
    };
    assert.ok(held(spaced) < most);
  });
});
