import type { EventFields } from './event-fields.ts';
import { withoutCredentials } from './public-url.ts';

/**
 * Characters that a terminal may take for commands, or that change how the text around them is shown: control characters but
 * for tab and line break (C0, DEL, C1), separators of lines, and marks of the direction of writing (Unicode Bidi Algorithm,
 * section 2), which can make a name look like another one.
 */
const commands = /(?![\t\n])[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}\ufeff]/gu;

const escaped = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`;

/** A text of several lines as a terminal may show it: each character that could be a command becomes `\uXXXX`. */
export const forTerminal = (text: string): string => text.toWellFormed().replace(commands, escaped);

/** A text as a terminal may show it in one line. */
export const inOneLine = (text: string): string => forTerminal(text).replace(/[\t\n]/g, escaped);

/**
 * A text as a terminal may show it below each other: line breaks are kept, and each further line begins with `indent`, so that
 * none of them looks like a line of the program.
 */
export const indented = (text: string, indent: string): string =>
  text
    .replace(/\r?\n$/, '')
    .split(/\r?\n/)
    .map(inOneLine)
    .join(`\n${indent}`);

/** JSON that a terminal may show. It has the same value: the characters are written as escapes inside the strings. */
export const safeJson = (value: unknown, indent?: number): string =>
  forTerminal(JSON.stringify(value, null, indent));

/** Characters of one text in a line of the log. Messages of errors and stacks may be longer. */
export const logTextLimits = { text: 512, stack: 4096 } as const;

/**
 * One line of the log: JSON as `safeJson`, with each text cut, and without the passwords of URLs in messages of libraries.
 * @param line texts, numbers and booleans
 */
export function boundedJson(line: EventFields): string {
  // A replacer of JSON.stringify would make it three times as slow, and there are five lines for each device that attaches.
  const bounded: Record<string, EventFields[string]> = {};
  for (const key in line) {
    const value = line[key];
    bounded[key] = typeof value === 'string' ? boundedText(key, value) : value;
  }
  return forTerminal(JSON.stringify(bounded));
}

function boundedText(key: string, text: string): string {
  const limit = key === 'stack' || key === 'message' ? logTextLimits.stack : logTextLimits.text;
  const cut = text.length > limit ? `${text.slice(0, limit)}…` : text;
  return cut.includes('@') ? withoutCredentials(cut) : cut;
}
