import {
  type Alert,
  type Command,
  type Item,
  isCompositeCommand,
  type Results,
  type Status,
} from '../wire/syncml/message.ts';
import { AlertCode, DmStatus } from './status.ts';

/** Commands that get no Status, unless something is wrong with them. */
export const unanswered: ReadonlySet<string> = new Set(['Status', 'Results']);

export type StatusFields = Partial<Pick<Status, 'targetRefs' | 'sourceRefs' | 'chal' | 'items'>>;

/** Name of the command's element. */
export const nameOf = (command: Command): string =>
  command.name === 'Unknown' ? command.element.name : command.name;

export const abort: Alert = { name: 'Alert', cmdId: '', data: AlertCode.SessionAbort, items: [] };
export const nextMessage: Alert = { name: 'Alert', cmdId: '', data: AlertCode.NextMessage, items: [] };

/** Says that another item came before the end of a large object (OMA DM protocol 1.2.1, section 7.3). */
export const noEndOfData = ({ target, source }: Item): Alert => ({
  name: 'Alert',
  cmdId: '',
  data: AlertCode.NoEndOfData,
  items: [{ ...(target && { target }), ...(source && { source }) }],
});

/** Whether a Status of a header asks for another credential. */
export const isChallenge = ({ data }: Status): boolean =>
  data === DmStatus.InvalidCredentials || data === DmStatus.MissingCredentials;

/** Whether a package with this command must be answered. */
export const isRequest = (command: Command): boolean =>
  !unanswered.has(command.name) && !(command.name === 'Alert' && command.data === AlertCode.NextMessage);

/** CmdIDs of a command and of the commands within it. */
export function idsOf(command: Command): string[] {
  return isCompositeCommand(command) ? [command.cmdId, ...command.commands.flatMap(idsOf)] : [command.cmdId];
}

/** Number of CmdIDs that these commands have, with the commands within them. */
export const idsIn = (commands: readonly Command[]): number => commands.flatMap(idsOf).length;

/** Builds a Status for the command `cmd` with these references. Its own CmdID is set when it is sent. */
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

/** A Status without what it may lack: the names of what it is for. */
export const withoutReferences = (command: Command): Command =>
  command.name === 'Status' ? { ...command, targetRefs: [], sourceRefs: [] } : command;

/** What a Get found, as one Results command for each item, so that each can go into a message of its own. */
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
