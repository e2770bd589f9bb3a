SELECT s, kind, content FROM t WHERE kind <> 2
