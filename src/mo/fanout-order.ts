import { PosternError } from '../base/errors.ts';
import type { Operation } from '../dm/server-session.ts';
import { isUserInteraction } from '../dm/status.ts';
import type { StoredBranch } from '../dm/stored-branch.ts';
import { decodeDocument, MediaType } from '../wire/syncml/codec.ts';
import { type Command, isCompositeCommand } from '../wire/syncml/message.ts';
import type { CampaignOrder } from './campaign.ts';
import { campaignDefaults, integerAt, type TargetChoice, targetsOf } from './targets.ts';

/** A fan-out as the DM server ordered it. */
export interface FanoutOrder extends CampaignOrder {
  /** The commands as the server wrote them, in XML. */
  readonly command: string;
  readonly operations: readonly Operation[];
  /** Milliseconds that a device may take to open a session. */
  readonly timeout: number;
  /** Milliseconds to wait for an LwM2M client that sleeps. */
  readonly patience: number;
}

/**
 * Largest number of commands of a fan-out, with those within Atomic and Sequence. They fit into one package of a
 * session.
 */
const commandBound = 64;
/** Seconds that a device may take to open a session, when the order does not say. */
const defaultTimeout = 60;

/**
 * Reads a fan-out from its nodes. Its targets are determined at this moment.
 * @throws {PosternError} `malformed` for commands that cannot be fanned out, `tooLarge` for too many
 */
export function readFanout(
  branch: StoredBranch,
  name: string,
  server: string,
  choice: TargetChoice,
): FanoutOrder {
  const at = ['Fanout', name] as const;
  const command = branch.text(...at, 'Command') ?? '';
  const deadline = integerAt(branch, [...at, 'Deadline'], campaignDefaults.deadline);
  return {
    name,
    server,
    command,
    operations: operationsOf(command),
    devices: targetsOf(branch, at, choice),
    returnFormat: integerAt(branch, [...at, 'ReturnFormat'], campaignDefaults.returnFormat),
    timeout: integerAt(branch, [...at, 'Timeout'], defaultTimeout) * 1000,
    patience: integerAt(branch, [...at, 'Timeout'], deadline) * 1000,
    deadline: deadline * 1000,
  };
}

const header =
  '<SyncHdr><VerDTD>1.2</VerDTD><VerProto>DM/1.2</VerProto><SessionID>1</SessionID><MsgID>1</MsgID><Target><LocURI>d</LocURI></Target><Source><LocURI>g</LocURI></Source></SyncHdr>';

/**
 * Reads the commands of a fan-out.
 * @param command XML of the commands, with or without the element SyncBody around them
 * @throws {PosternError} `malformed`, `tooLarge`
 */
export function operationsOf(command: string): Operation[] {
  const body = /^\s*<SyncBody[\s>]/.test(command) ? command : `<SyncBody>${command}</SyncBody>`;
  const document = `<SyncML xmlns="SYNCML:SYNCML1.2">${header}${body}</SyncML>`;
  const { commands } = decodeDocument(Buffer.from(document), MediaType.Xml);
  const operations = commands.flatMap(operationsIn);
  if (operations.length === 0) throw new PosternError('malformed', 'a fan-out without a command');
  if (count(operations) > commandBound)
    throw new PosternError('tooLarge', `a fan-out of more than ${commandBound} commands`);
  return operations;
}

const count = (operations: readonly Operation[]): number =>
  operations.reduce((sum, each) => sum + 1 + ('operations' in each ? count(each.operations) : 0), 0);

/** The operations of a command, one for each of its items. */
function operationsIn(command: Command): Operation[] {
  if (isCompositeCommand(command))
    return [{ name: command.name, operations: command.commands.flatMap(operationsIn) }];
  switch (command.name) {
    case 'Alert':
      if (!isUserInteraction(command.data)) break;
      return [
        { name: 'Alert', code: command.data, items: command.items.map(({ data }) => String(data ?? '')) },
      ];
    case 'Get':
    case 'Add':
    case 'Replace':
    case 'Delete':
    case 'Copy':
    case 'Exec': {
      const { name, meta: outer, items } = command;
      return items.map(({ target, source, meta, data }) => {
        if (!target) throw new PosternError('malformed', `<${name}> without a target`);
        const { format, type } = { ...outer, ...meta };
        return {
          name,
          uri: target.locUri,
          ...(source && { from: source.locUri }),
          ...(format !== undefined && { format }),
          ...(type !== undefined && { type }),
          ...(data !== undefined && { data }),
          ...(command.name === 'Exec' &&
            command.correlator !== undefined && { correlator: command.correlator }),
        };
      });
    }
  }
  const name = command.name === 'Unknown' ? command.element.name : command.name;
  throw new PosternError('malformed', `<${name}> cannot be fanned out`);
}
