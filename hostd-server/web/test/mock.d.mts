export function answer(method: string, url: string, count?: number): [number, unknown];
