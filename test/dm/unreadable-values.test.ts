// Values with characters that XML 1.0 cannot hold (section 2.2), as stock clients write them all the same.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { OperationOutcome } from '../../src/dm/server-session.ts';
import { decodeMessage, encodeMessage, MediaType } from '../../src/wire/syncml/codec.ts';
import { elementOf, type SyncmlMessage } from '../../src/wire/syncml/message.ts';
import { encodeXml } from '../../src/wire/syncml/xml.ts';
import { client, converse, manage, noncePair, server, statusesOf } from './parties.ts';

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

// conforms: REP-22
for (const mediaType of [MediaType.Xml, MediaType.Wbxml, MediaType.Cbor])
  test(`an order with such a character in a URI or a type gets 400 and is not sent; the others count (${mediaType})`, async () => {
    for (const unfit of ['\u0000', '\u001b', '\ufffe', '\ud800']) {
      const get = (uri: string) => ({ name: 'Get', uri }) as const;
      const bad = get(`./Site/a${unfit}`);
      const replace = { name: 'Replace', uri: './Site/Name', data: 'south' } as const;
      const { outcomes, said } = await manage(
        [
          get('./Site/Count'),
          bad,
          { name: 'Replace', uri: './Site/Name', type: `text/${unfit}`, data: 'lost' },
          { name: 'Add', uri: './Site/Rooms/R', format: `no${unfit}de` },
          { name: 'Copy', uri: './Site/Name', from: `./Site/${unfit}` },
          { name: 'Exec', uri: './Do', correlator: unfit },
          { name: 'Sequence', operations: [get('./Site/Count'), { name: 'Atomic', operations: [bad] }] },
          { name: 'Atomic', operations: [{ name: 'Replace', uri: './Site/Name', data: 'lost' }, bad] },
          replace,
          get('./Site/Serial'),
        ],
        undefined,
        {},
        mediaType,
      );
      assert.deepEqual(
        outcomes.map(({ status }) => status),
        [200, 400, 400, 400, 400, 400, 400, 400, 200, 200],
      );
      // In a compound the part to blame is shown. What is beside it was not executed.
      const [sequence, atomic] = [outcomes[6]?.parts, outcomes[7]?.parts];
      assert.deepEqual(
        sequence?.map(({ status }) => status),
        [215, 400],
      );
      assert.deepEqual(
        atomic?.map(({ status }) => status),
        [215, 400],
      );
      assert.deepEqual([outcomes[0]?.results[0]?.data, outcomes[9]?.results[0]?.data], ['3', 's-1']);
      const names = said.flatMap(({ commands }) => commands.map(({ name }) => name));
      assert.ok(!names.some((name) => ['Add', 'Copy', 'Exec', 'Atomic', 'Sequence'].includes(name)));
    }
  });

// conforms: REP-22
test('orders that cannot be written, and nothing else, are a round of their own: the work goes on', async () => {
  const { device, dm } = noncePair();
  const rounds: number[][] = [];
  const serverSide = server(dm, {
    work: async function* () {
      for (const uri of ['./Site/\u0001', './Site/Name'])
        rounds.push((yield [{ name: 'Get', uri }]).map(({ status }) => status));
    },
  });
  await converse(client(device), serverSide, undefined, MediaType.Xml);
  assert.deepEqual(rounds, [[400], [200]]);
  assert.equal(serverSide.outcome?.status, 200);
});
