import * as v from 'valibot';
import { type OperationOutcome, placeOf } from '../dm/server-session.ts';
import { shownResult } from '../dm/shown-result.ts';

/** An outcome as the API shows it and as this server stores it. Fields that do not apply are absent. */
export interface OutcomeView {
  /** Name of the DM command. */
  readonly name: string;
  readonly uri: string;
  /** DM status. */
  readonly status: number;
  /** What a Get returned. */
  readonly results?: {
    readonly uri: string;
    readonly format?: string | undefined;
    readonly type?: string | undefined;
    readonly data: string;
  }[];
  /** What the user of the device said to a question. */
  readonly said?: readonly string[];
  /** Outcomes of the commands inside an Atomic or Sequence. */
  readonly parts?: OutcomeView[];
}

export const outcomeView = ({ operation, status, results, said, parts }: OperationOutcome): OutcomeView => ({
  name: operation.name,
  uri: placeOf(operation),
  status,
  ...(results.length > 0 && {
    results: results.map(shownResult),
  }),
  ...(said && { said }),
  ...(parts && { parts: parts.map(outcomeView) }),
});

/** Characters of the outcomes of one session that are stored. Beyond them the values are left out; the statuses stay. */
export const storedOutcomesLimit = 65_536;

/** Outcomes as JSON, to be stored. */
export function outcomesJson(outcomes: readonly OutcomeView[]): string {
  const whole = JSON.stringify(outcomes);
  return whole.length <= storedOutcomesLimit ? whole : JSON.stringify(outcomes.map(withoutValues));
}

const withoutValues = ({ results: _, said: __, parts, ...rest }: OutcomeView): OutcomeView => ({
  ...rest,
  ...(parts && { parts: parts.map(withoutValues) }),
});

/** Outcomes in the form that `outcomesJson` writes. */
export const storedOutcomes: v.GenericSchema<OutcomeView[]> = v.array(
  v.lazy(() =>
    v.object({
      name: v.string(),
      uri: v.string(),
      status: v.number(),
      results: v.exactOptional(
        v.array(
          v.object({
            uri: v.string(),
            format: v.optional(v.string()),
            type: v.optional(v.string()),
            data: v.string(),
          }),
        ),
      ),
      said: v.exactOptional(v.array(v.string())),
      parts: v.exactOptional(storedOutcomes),
    }),
  ),
);
