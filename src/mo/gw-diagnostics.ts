import { interior, leaf, type ManagementObject } from '../wire/syncml/ddf.ts';
import { MoId } from './identifiers.ts';

const get = ['Get'] as const;

/** GwDiagnostics: what became of a gateway and its board before the last start. Postern's own (docs/gwmo.md). */
export const gwDiagnostics: ManagementObject = {
  id: MoId.GwDiagnostics,
  root: interior(get, 'Diagnosis of the board and its slots', {
    ResetCause: leaf(
      'chr',
      get,
      'Why the board started last: ordered, watchdog, panic, or power; empty if not known',
    ),
    Starts: leaf('chr', get, 'Starts of the board since it was flashed'),
    Slots: leaf('chr', get, 'Slots, their state and the last update; JSON'),
    LastCrash: leaf('chr', get, 'End of the log before the last crash of the gateway, at most 16 KiB'),
    KernelLog: leaf('chr', get, 'End of the log of the kernel before the last start, at most 16 KiB'),
  }),
};
