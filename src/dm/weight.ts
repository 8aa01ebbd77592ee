import { type Command, type Item, isCompositeCommand, itemsOf } from '../wire/syncml/message.ts';

/** Bytes that a command or an item takes in memory besides its texts and values. */
const overhead = 200;

/** About how many bytes an item takes in memory. */
export const weightOfItem = ({ target, source, data }: Item): number =>
  overhead + (target?.locUri.length ?? 0) + (source?.locUri.length ?? 0) + (data?.length ?? 0);

/** About how many bytes a command takes in memory, with the commands within it. */
export function weightOf(command: Command): number {
  let weight = overhead;
  for (const item of itemsOf(command)) weight += weightOfItem(item);
  if (command.name === 'Status')
    for (const uri of [...(command.targetRefs ?? []), ...(command.sourceRefs ?? [])]) weight += uri.length;
  if (isCompositeCommand(command)) for (const inner of command.commands) weight += weightOf(inner);
  return weight;
}
