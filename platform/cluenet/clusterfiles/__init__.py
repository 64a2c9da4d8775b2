"""Strict models of files that Ray, its cluster launcher and KubeRay read, because these drop what they do not know."""
