// `npm run docs`: makes docs/events.md from the table of events and from what docs/events.toml says of each.
import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { parse } from 'smol-toml';
import { type EventName, eventTable, isByPeer, severityOf } from '../base/event-table.ts';
import { commonFields, type EventField, emitters, fieldsOfEvents, type PartyName } from './event-sources.ts';

export interface EventProse {
  readonly means?: string;
  readonly do?: string;
  readonly fields?: Readonly<Record<string, string>>;
}

export interface Prose {
  /** What the events of a subject, the part of their names before the dot, are about. */
  readonly subjects: Readonly<Record<string, string>>;
  /** Meanings of common fields. */
  readonly fields: Readonly<Record<string, string>>;
  readonly events: Readonly<Record<string, EventProse>>;
}

const docs = (file: string): string => fileURLToPath(new URL(`../../docs/${file}`, import.meta.url));

export function readProse(): Prose {
  const { subjects, fields, ...rest } = parse(readFileSync(docs('events.toml'), 'utf8'));
  const events = Object.entries(rest).flatMap(([subject, entries]) =>
    Object.entries(entries).map(([event, prose]) => [`${subject}.${event}`, prose as EventProse] as const),
  );
  return {
    subjects: subjects as Prose['subjects'],
    fields: fields as Prose['fields'],
    events: Object.fromEntries(events),
  };
}

const names = Object.keys(eventTable) as EventName[];
const subjectOf = (name: string): string => name.split('.')[0] ?? '';

/** What table, sources and prose do not agree on; nothing when they do. */
export function complaints({ subjects, fields, events }: Prose = readProse()): string[] {
  const emitted = emitters();
  const declared = fieldsOfEvents();
  const common = commonFields();
  const used = new Set([...declared.values()].flatMap((list) => list.map(({ name }) => name)));
  return [
    ...names.flatMap((name) => {
      const { means, do: advice, fields: own = {} } = events[name] ?? {};
      const list = declared.get(name) ?? [];
      return [
        ...(means ? [] : [`docs/events.toml does not say what ${name} means`]),
        ...(advice || !['warn', 'error'].includes(severityOf(name))
          ? []
          : [`docs/events.toml does not say what to do about ${name}`]),
        ...(emitted.has(name) ? [] : [`nothing in src/ emits ${name}`]),
        ...(list.length > 0 ? [] : [`the declaration of ${name} cannot be read`]),
        ...list
          .filter((field) => !own[field.name] && !(field.common && fields[field.name]))
          .map((field) => `docs/events.toml does not say what ${field.name} of ${name} is`),
        ...Object.keys(own)
          .filter((field) => !list.some((one) => one.name === field))
          .map((field) => `docs/events.toml explains ${field} of ${name}, which has no such field`),
      ];
    }),
    ...Object.keys(events)
      .filter((name) => !Object.hasOwn(eventTable, name))
      .map((name) => `docs/events.toml explains ${name}, which is no event`),
    ...[...common.keys()].filter((name) => !used.has(name)).map((name) => `no event has the field ${name}`),
    ...[...common.keys()]
      .filter((name) => !fields[name])
      .map((name) => `docs/events.toml does not say what the common field ${name} is`),
    ...Object.keys(fields)
      .filter((name) => !common.has(name))
      .map((name) => `docs/events.toml explains ${name}, which is no common field`),
    ...[...new Set(names.map(subjectOf))]
      .filter((subject) => !subjects[subject])
      .map((subject) => `docs/events.toml does not say what the subject ${subject} is`),
    ...Object.keys(subjects)
      .filter((subject) => !names.some((name) => subjectOf(name) === subject))
      .map((subject) => `no event has the subject ${subject}`),
  ];
}

const labels: Readonly<Record<PartyName, string>> = {
  gateway: 'gateway',
  headend: 'head-end',
  device: 'device',
};
const kinds: Readonly<Record<string, string>> = {
  string: 'text',
  number: 'number',
  boolean: 'true or false',
};

const introduction = `Every part of Postern says what happens by events. A log line is an event as one JSON object: \`event\` is its name, \`level\` its severity (20 debug, 30 info, 40 warn, 50 error), \`party\` who says it (gateway, headend, device or launcher), and the rest are its fields. \`postern status\` counts the events of a gateway by name since its start. To look up a name, search this page for it.

| Severity | What it says |
|---|---|
| debug | A detail that helps to follow single packages. Logged with \`log.level = "debug"\`. |
| info | Something happened in the normal course. |
| warn | Something went wrong, or is not secured. Postern goes on by itself. |
| error | Something went wrong that should not be possible, or that Postern cannot mend by itself. |

Events that a peer can cause by what it sends are marked "caused by a peer". The log tells each of them once a minute for each cause and peer, and at most 32 at once and one in 2 s of one name (infos: 2000, and 10 in a second). What is left out is counted: a line with \`repeated\` follows within a minute, with the fields of the line that was written and the latest state (\`online\`), or with \`others\` for all other causes and peers of this name. Texts in a line are cut at 512 characters. \`postern status\`, and \`GET /counts\` of the head-end, count every one.

No event has a secret, a nonce or a payload. This page is made by \`npm run docs\` from [src/base/event-table.ts](../src/base/event-table.ts) and [events.toml](events.toml).`;

/** Markdown of a text: a line break is a space, but for items of a list. */
function markdown(text: string): string {
  const blocks: string[] = [];
  for (const line of text.trim().split('\n')) {
    const before = blocks.at(-1);
    if (before === undefined || line.startsWith('- ') !== before.startsWith('- ')) blocks.push(line);
    else blocks[blocks.length - 1] = `${before}${line.startsWith('- ') ? '\n' : ' '}${line}`;
  }
  return blocks.join('\n\n');
}

const fieldText = ({ name, optional }: EventField): string => `\`${name}\`${optional ? ' (optional)' : ''}`;

/** What the page says of one event. */
function eventText(
  name: EventName,
  emitting: readonly PartyName[],
  list: readonly EventField[],
  { means = '', do: advice, fields = {} }: EventProse,
): string {
  const by = emitting.map((party) => labels[party]).join(' and the ');
  const explained = list.filter((field) => fields[field.name]);
  return [
    `### \`${name}\``,
    `**${severityOf(name)}**, by the ${by}${isByPeer(name) ? ', caused by a peer' : ''}`,
    markdown(means),
    ...(advice ? [markdown(`What to do:\n${advice}`)] : []),
    `Fields: ${list.map(fieldText).join(', ')}`,
    ...(explained.length > 0
      ? [explained.map((field) => `- \`${field.name}\`: ${fields[field.name]}`).join('\n')]
      : []),
  ].join('\n\n');
}

/** The whole page. */
export function eventsPage({ subjects, fields, events }: Prose = readProse()): string {
  const emitted = emitters();
  const declared = fieldsOfEvents();
  const bySubject = Map.groupBy(names, subjectOf);
  const commonRows = [...commonFields()].map(
    ([name, type]) => `| \`${name}\` | ${kinds[type]} | ${fields[name]} |`,
  );
  return `${[
    '# Events',
    introduction,
    `Subjects: ${[...bySubject.keys()].map((subject) => `[${subject}](#${subject})`).join(', ')}.`,
    ...[...bySubject].flatMap(([subject, own]) => [
      `## ${subject}`,
      markdown(subjects[subject] ?? ''),
      ...own.map((name) =>
        eventText(name, emitted.get(name) ?? [], declared.get(name) ?? [], events[name] ?? {}),
      ),
    ]),
    '## Fields',
    'These fields mean the same wherever an event does not say otherwise.',
    ['| Field | | What it is |', '|---|---|---|', ...commonRows].join('\n'),
  ].join('\n\n')}\n`;
}

if (import.meta.main) {
  for (const complaint of complaints()) console.error(complaint);
  writeFileSync(docs('events.md'), eventsPage());
}
