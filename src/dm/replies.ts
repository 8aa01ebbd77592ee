import {
  type Alert,
  type Command,
  type Item,
  isCompositeCommand,
  type Results,
  type Status,
} from '../wire/syncml/message.ts';
import { AlertCode, DmStatus } from './status.ts';

/** Commands that SyncML gives no status for, unless something is wrong with them. */
export const unanswered: ReadonlySet<string> = new Set(['Status', 'Results']);

export type StatusFields = Partial<Pick<Status, 'targetRefs' | 'sourceRefs' | 'chal'>>;

export const nameOf = (command: Command): string =>
  command.name === 'Unknown' ? command.element.name : command.name;

export const abort: Alert = { name: 'Alert', cmdId: '', data: AlertCode.SessionAbort, items: [] };
export const nextMessage: Alert = { name: 'Alert', cmdId: '', data: AlertCode.NextMessage, items: [] };

export const isChallenge = ({ data }: Status): boolean =>
  data === DmStatus.InvalidCredentials || data === DmStatus.MissingCredentials;

/** Whether a package that holds this command asks for an answer. */
export const isRequest = (command: Command): boolean =>
  !unanswered.has(command.name) && !(command.name === 'Alert' && command.data === AlertCode.NextMessage);

export function idsOf(command: Command): string[] {
  return isCompositeCommand(command) ? [command.cmdId, ...command.commands.flatMap(idsOf)] : [command.cmdId];
}

export const idsIn = (commands: readonly Command[]): number => commands.flatMap(idsOf).length;

export function statusOf(
  msgRef: number,
  cmdRef: string,
  cmd: string,
  data: number,
  fields: StatusFields = {},
): Status {
  return {
    name: 'Status',
    cmdId: '',
    msgRef,
    cmdRef,
    cmd,
    targetRefs: [],
    sourceRefs: [],
    data,
    items: [],
    ...fields,
  };
}

/** What a Get found, in as many commands as its items: so that each can go in a message of its own. */
export const resultsOf = (
  msgRef: number,
  cmdRef: string,
  items: Iterable<Item>,
): IteratorObject<Results, undefined> =>
  Iterator.from(items).map((item) => ({
    name: 'Results',
    cmdId: '',
    msgRef,
    cmdRef,
    targetRefs: [],
    sourceRefs: [],
    items: [item],
  }));
