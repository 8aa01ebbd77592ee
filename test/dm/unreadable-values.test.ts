// Values with characters that XML 1.0 cannot hold (section 2.2), as stock clients write them all the same.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OperationOutcome } from '../../src/dm/server-session.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { elementOf, type SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { encodeXml } from '../../src/wire/syncml/xml.ts';
import { client, noncePair, server, statusesOf } from './parties.ts';

const forms = ['\u0000', '\u0001', '\ufffe', '&#0;', '&#x0;', '&#x1F;', '&#xD800;', '&#65535;', '&#9999999;'];

/** A message as a client writes it, with `inside` in place of `@`. */
const written = (message: SyncmlMessage, inside: string): SyncmlMessage => {
  const xml = Buffer.from(encodeXml(elementOf(message)))
    .toString()
    .replaceAll('@', inside);
  return decodeMessage(Buffer.from(xml), MediaType.Xml);
};

for (const form of forms)
  test(`${JSON.stringify(form)} in a value: the item gets 400, and the rest of the message counts`, async () => {
    const { device, dm } = noncePair();
    const outcomes: OperationOutcome[] = [];
    const heard: number[] = [];
    const dmServer = server(dm, {
      work: async function* ({ devInfo }) {
        assert.equal(devInfo.Man, 'Maker', 'the other items of the Replace count');
        assert.equal(devInfo.Mod, undefined);
        outcomes.push(
          ...(yield [
            { name: 'Get', uri: './Site/Name' },
            { name: 'Get', uri: './Site/Count' },
          ]),
        );
      },
      alerted: ({ data }) => heard.push(data) && 200,
    });
    const alert = { code: 1226, items: [{ meta: { type: 'urn:x', format: 'chr' }, data: '1' }] };
    const clientSide = client(device, { alerts: [alert] });
    const spoil = ({ commands, ...rest }: SyncmlMessage, uri: string): SyncmlMessage => ({
      ...rest,
      commands: commands.map((command) =>
        'items' in command && (command.name === 'Replace' || command.name === 'Results')
          ? {
              ...command,
              items: command.items.map((item) =>
                item.source?.locUri === uri ? { ...item, data: 'a@b' } : item,
              ),
            }
          : command,
      ),
    });
    const first = spoil(clientSide.start(), './DevInfo/Mod');
    const answer = await dmServer.receive(written(first, form));
    assert.deepEqual(
      statusesOf(answer).filter((status) => status.startsWith('Replace')),
      ['Replace 400', 'Replace 200'],
    );
    assert.deepEqual(heard, [1226]);
    const next = await clientSide.receive(decodeMessage(encodeMessage(answer, MediaType.Xml), MediaType.Xml));
    const results = spoil(next!, './Site/Name');
    await dmServer.receive(written(results, form));
    assert.deepEqual(
      outcomes.map(({ status, results: found }) => [status, found.length]),
      [
        [400, 0],
        [200, 1],
      ],
    );
  });

test('such a character in what is no value, and other faults, refuse the message as before', () => {
  const { device } = noncePair();
  const start = client(device).start();
  const withId = { ...start, header: { ...start.header, sessionId: '1@' } };
  for (const form of forms) assert.throws(() => written(withId, form), { code: 'malformed' }, form);
  assert.throws(() => written(withId, '&#65;<'), { code: 'malformed' });
});
