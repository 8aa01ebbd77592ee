import { PosternError } from './errors.ts';

/**
 * The target of an HTTP request as a URL whose host says nothing: path and query are what counts. A target such as `//x` is a
 * path, though a URL of that form would have the host `x`.
 * @throws {PosternError} `malformed` for a target that is no path, such as `*` or a whole URL (RFC 9112, section 3.2)
 */
export function requestUrl(target: string | undefined): URL {
  const url = target?.startsWith('/') ? URL.parse(`http://localhost${target}`) : null;
  if (!url) throw new PosternError('malformed', 'the request names no path');
  return url;
}
