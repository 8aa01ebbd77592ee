import { type OperationOutcome, placeOf, textOfResult } from '../dm/server-session.ts';

/** An outcome as the API shows it. Fields that do not apply are absent. */
export const outcomeView = ({ operation, status, results, parts }: OperationOutcome): object => ({
  name: operation.name,
  uri: placeOf(operation),
  status,
  ...(results.length > 0 && {
    results: results.map(({ uri, format, data }) => ({ uri, format, data: textOfResult(data) })),
  }),
  ...(parts && { parts: parts.map(outcomeView) }),
});
